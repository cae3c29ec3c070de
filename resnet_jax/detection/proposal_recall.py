"""How good proposals are: the share of a split's objects that one of them covers."""

from collections.abc import Callable

import jax
import numpy as np
from jax import lax

from resnet_jax.detection.average_precision import pairwise_iou
from resnet_jax.detection.detecting import make_propose
from resnet_jax.detection.detector import Detector
from resnet_jax.detection.object_batches import ObjectEvaluationBatches
from resnet_jax.detection.rows import Truth
from resnet_jax.parallel import AXIS_NAME, Mapping
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Batch


def proposal_rows_step(model: Detector) -> Callable[[TrainState, Batch], dict[str, jax.Array]]:
    """Returns a step that gives the proposals of a global batch on every device, and of which images."""
    propose = make_propose(model)

    def step(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        boxes, valid = propose(state.variables, state.image_mean, batch)
        found = {"box": boxes, "valid": valid} | {name: batch[name] for name in ("scale", "example", "mask")}
        return {name: lax.all_gather(array, AXIS_NAME, tiled=True) for name, array in found.items()}

    return step


def proposal_recall(
    step: Callable[[TrainState, Batch], dict[str, jax.Array]],
    state: TrainState,
    batches: ObjectEvaluationBatches,
    mapping: Mapping,
    truth: Truth,
) -> dict[str, float]:
    """Returns `recall50` and `recall70`, shares of the objects with a proposal of that IoU, and `images`.

    Args:
        step: `proposal_rows_step`, mapped by `mapping`.
        state: State, placed by `mapping`.
        batches: This process's part of the split's batches.
        mapping: The devices.
        truth: Objects of the split; difficult ones and crowds do not count.
    """
    best = np.zeros(len(truth.label))
    for batch in batches:
        rows = {name: np.asarray(array) for name, array in step(state, mapping.shard(batch)).items()}
        for place in np.flatnonzero(rows["mask"]):
            objects = np.flatnonzero(truth.example == rows["example"][place])
            boxes = rows["box"][place][rows["valid"][place]] / rows["scale"][place][[1, 0, 1, 0]]
            if len(objects) and len(boxes):
                best[objects] = pairwise_iou(truth.box[objects], boxes.astype(np.float64)).max(1)
    counted = best[~(truth.difficult | truth.crowd)]
    return {f"recall{level}": float((counted >= level / 100).mean()) for level in (50, 70)} | {
        "images": truth.images
    }
