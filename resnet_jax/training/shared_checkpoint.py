"""A checkpoint that one process of a run has read, on all of them: it is read once, not by each host."""

import dataclasses
from typing import Any

import numpy as np

from resnet_jax.parallel import Processes
from resnet_jax.parallel.sharing import share_bytes, share_value
from resnet_jax.training.checkpoints import Checkpoint


def share_checkpoint(checkpoint: Checkpoint | None, processes: Processes) -> Checkpoint | None:
    """Returns the first process's checkpoint on every process; None if it has none.

    Every process calls it. The arrays travel as bytes: summed as numbers, -0.0 would arrive as 0.0.

    Args:
        checkpoint: What the first process has read; the others' is not looked at.
        processes: The processes of the run.
    """
    if processes.count == 1:
        return checkpoint
    described: dict[str, Any] | None = None
    packed = np.zeros(0, np.uint8)
    if processes.first and checkpoint:
        arrays = checkpoint.arrays
        described = {
            field.name: getattr(checkpoint, field.name)
            for field in dataclasses.fields(checkpoint)
            if field.name != "arrays"
        }
        described["arrays"] = {name: [array.dtype.name, array.shape] for name, array in arrays.items()}
        packed = np.concatenate([array.reshape(-1).view(np.uint8) for array in arrays.values()])
    described = share_value(processes, "checkpoint", described)
    if described is None:
        return None
    layout = described.pop("arrays")
    sizes = [np.dtype(dtype).itemsize * int(np.prod(shape, dtype=int)) for dtype, shape in layout.values()]
    packed = share_bytes(processes, packed, sum(sizes))
    if processes.first:
        return checkpoint
    parts = np.split(packed, np.cumsum(sizes)[:-1])
    names = described.pop("class_names")
    return Checkpoint(
        **described,
        class_names=None if names is None else tuple(names),
        arrays={
            name: part.view(np.dtype(dtype)).reshape(shape)
            for part, (name, (dtype, shape)) in zip(parts, layout.items(), strict=True)
        },
    )
