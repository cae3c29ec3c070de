"""Statistics of batch normalization that were recomputed after training, stored beside checkpoints.

`<workdir>/precise_bn/<step>.npz` holds means and variances by the names that they have in the checkpoint of
that step, the number of training images that they are of, a SHA-256 of all this, and one of the weights that
they belong to.
"""

import dataclasses
import hashlib
from typing import Any

import numpy as np
from etils import epath

from resnet_jax.files import NPZ_ERRORS, as_path, open_for_replacing
from resnet_jax.training.checkpoints import Arrays, Checkpoint, CheckpointError

PRECISE_BN = "precise_bn"
PREFIX = "batch_stats/"
MOVING, PRECISE = STATISTICS = ("moving", "precise")


def save_precise(
    workdir: epath.PathLike, checkpoint: Checkpoint, statistics: Arrays, *, images: int
) -> epath.Path:
    """Writes recomputed statistics of a checkpoint, whole or not at all, and returns where.

    Args:
        workdir: Directory of the run.
        checkpoint: Checkpoint with these statistics.
        statistics: By path, `batch_stats/…`, all that the checkpoint has.
        images: Training images that they are of.
    """
    target = _file(workdir, checkpoint.step)
    target.parent.mkdir(parents=True, exist_ok=True)
    stored = {f"statistics/{name}": array for name, array in statistics.items()}
    stored["images"] = np.array(images)
    stored["weights"] = np.array(_weights_of(checkpoint))
    stored["checksum"] = np.array(_digest({**statistics, "images": stored["images"]}))
    with open_for_replacing(target) as file:
        np.savez(file, allow_pickle=False, **stored)
    return target


def has_precise(workdir: epath.PathLike, step: int) -> bool:
    """Returns whether the statistics of a checkpoint were recomputed."""
    return _file(workdir, step).exists()


def with_statistics(workdir: epath.PathLike, checkpoint: Checkpoint, kind: str) -> tuple[Checkpoint, int]:
    """Returns a checkpoint with its statistics of a kind, and the number of images of recomputed ones, or 0.

    Args:
        workdir: Directory of the run.
        checkpoint: As it was read.
        kind: "moving" or "precise".

    Raises:
        CheckpointError: The kind does not exist, none were recomputed at this step, or the file is damaged or
            of other weights.
    """
    if kind not in STATISTICS:
        raise CheckpointError(f"unknown statistics {kind!r}; allowed are {', '.join(STATISTICS)}")
    if kind == MOVING:
        return checkpoint, 0
    path = _file(workdir, checkpoint.step)
    again = (
        f"`resnet-jax evaluate --workdir {workdir} --step {checkpoint.step} --precise-bn IMAGES` computes it"
    )
    if not path.exists():
        raise CheckpointError(
            f"there are no precise statistics of step {checkpoint.step} in {workdir}; {again}"
        )
    try:
        with path.open("rb") as file, np.load(file) as stored:
            loaded = {name: stored[name] for name in stored.files}
        images, checksum, weights = (
            int(loaded.pop("images")),
            str(loaded.pop("checksum")),
            str(loaded.pop("weights")),
        )
    except NPZ_ERRORS as error:
        raise CheckpointError(f"{path} is damaged; {again} again") from error
    statistics = {name.removeprefix("statistics/"): array for name, array in loaded.items()}
    if _digest({**statistics, "images": np.array(images)}) != checksum:
        raise CheckpointError(f"{path} is not as it was written (its checksum differs); {again} again")
    moving = {name: array for name, array in checkpoint.arrays.items() if name.startswith(PREFIX)}
    same = statistics.keys() == moving.keys() and all(
        moving[name].shape == array.shape for name, array in statistics.items()
    )
    if weights != _weights_of(checkpoint) or not same:
        raise CheckpointError(
            f"{path} is of other weights than the checkpoint of step {checkpoint.step}; {again} again"
        )
    return dataclasses.replace(checkpoint, arrays={**checkpoint.arrays, **statistics}), images


def _file(workdir: epath.PathLike, step: int) -> epath.Path:
    return as_path(workdir) / PRECISE_BN / f"{step}.npz"


def _weights_of(checkpoint: Checkpoint) -> str:
    return _digest({name: array for name, array in checkpoint.arrays.items() if name.startswith("params/")})


def _digest(arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
