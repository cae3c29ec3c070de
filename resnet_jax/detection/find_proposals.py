"""The proposals of a trained detector for a whole split."""

import jax
import numpy as np
from etils import epath

from resnet_jax.data.batches import reading_threads
from resnet_jax.detection.detecting import make_propose
from resnet_jax.detection.object_batches import ObjectEvaluationBatches
from resnet_jax.detection.open_objects import open_objects
from resnet_jax.detection.proposal_file import Proposals
from resnet_jax.detection.trained_detector import detector_from
from resnet_jax.errors import UsageError
from resnet_jax.training.config import from_json
from resnet_jax.training.stored_code import read_trusted_checkpoint


def find_proposals(
    workdir: epath.PathLike, *, step: int | None = None, split: str | None = None, count: int = 2000
) -> Proposals:
    """Returns the proposals of every image of a split of a run's data.

    Args:
        workdir: Directory of the run.
        step: Checkpoint to use. Defaults to the newest.
        split: Name of the split. Defaults to the training split.
        count: Proposals of an image at most, the likeliest ones.

    Raises:
        UsageError: The run is of no detector.
        DataError: Its data is not at hand.
    """
    checkpoint = read_trusted_checkpoint(workdir, step)
    if checkpoint.model.get("task") != "detection":
        raise UsageError(f"{workdir} is of no detector, and has no proposals")
    config, detector = from_json(checkpoint.config), detector_from(checkpoint)
    data, size = config.data, min(8, config.batch_size)
    source = open_objects(data.source or "", split or data.train_split, data_dir=config.run.data_dir)
    workers = reading_threads(config.run.workers)
    batches = ObjectEvaluationBatches(source, size, slice(None), detector.detector.profile, workers)
    propose = jax.jit(make_propose(detector.detector, count=count))
    boxes, valid = np.zeros((len(source), count, 4), np.float32), np.zeros((len(source), count), bool)
    mean = detector.preprocessing.image_mean
    for batch in batches:
        found, ok = map(np.asarray, propose(detector.variables, mean, batch))
        mask, examples = batch["mask"], batch["example"]
        scale = batch["scale"][:, None, [1, 0, 1, 0]]
        boxes[examples[mask]] = (found / scale)[mask]
        valid[examples[mask]] = ok[mask]
    return Proposals(boxes, valid)
