"""The detections of a whole split, and how good they are."""

from collections.abc import Callable

import jax
import numpy as np
from jax import lax

from resnet_jax.detection.average_precision import voc
from resnet_jax.detection.coco_precision import coco
from resnet_jax.detection.detecting import make_detect
from resnet_jax.detection.detector import Detector
from resnet_jax.detection.object_batches import ObjectEvaluationBatches
from resnet_jax.detection.rows import Found, Truth, join_rows
from resnet_jax.parallel import AXIS_NAME, Mapping
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Batch


def detection_rows_step(
    model: Detector, protocol: str
) -> Callable[[TrainState, Batch], dict[str, jax.Array]]:
    """Returns a step that gives the detections of a global batch on every device, and of which images."""
    detect = make_detect(model, protocol=protocol)

    def step(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        found = detect(state.variables, state.image_mean, batch)._asdict()
        found |= {name: batch[name] for name in ("scale", "example", "mask")}
        return {name: lax.all_gather(array, AXIS_NAME, tiled=True) for name, array in found.items()}

    return step


def find_all(
    step: Callable[[TrainState, Batch], dict[str, jax.Array]],
    state: TrainState,
    batches: ObjectEvaluationBatches,
    mapping: Mapping,
) -> Found:
    """Returns the detections of a split, in pixels of the original images.

    Args:
        step: `detection_rows_step`, mapped by `mapping`.
        state: State, placed by `mapping`.
        batches: This process's part of the split's batches.
        mapping: The devices.
    """
    parts = []
    for batch in batches:
        rows = {name: np.asarray(array) for name, array in step(state, mapping.shard(batch)).items()}
        valid = rows["valid"] & rows["mask"][:, None]
        image, _ = np.nonzero(valid)
        scale = rows["scale"][image].astype(np.float64)
        boxes = rows["box"][valid].astype(np.float64) / scale[:, [1, 0, 1, 0]]
        labels = rows["label"][valid].astype(np.int64)
        score = rows["score"][valid].astype(np.float64)
        parts.append(Found(rows["example"][image].astype(np.int64), boxes, score, labels))
    return join_rows(parts)


def scores_of(found: Found, truth: Truth, classes: int) -> dict[str, float]:
    """Returns the metrics of a split.

    They are `mAP50` of VOC and `mAP50_11`, at eleven points; `mAP` of COCO, a mean over the overlaps .5 to
    .95; and `images`, their number.
    """
    return {
        "mAP50": voc(found, truth, classes).mean,
        "mAP50_11": voc(found, truth, classes, eleven=True).mean,
        "mAP": coco(found, truth, classes).mean,
        "images": truth.images,
    }
