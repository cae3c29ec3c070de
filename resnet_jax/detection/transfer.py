"""The weights that a detector begins with: those of a classifier, or of another detector."""

import numpy as np

from resnet_jax.training.checkpoints import CheckpointError, from_arrays, to_arrays
from resnet_jax.training.initial import Initial
from resnet_jax.training.state import TrainState

LEARNED = ("params/", "batch_stats/")


def begin_with(state: TrainState, initial: Initial) -> TrainState:
    """Returns the state with every array that the weights have at its path, and the mean of their images.

    A classifier gives stem and stages; its last layer is left out. What it does not have stays random.

    Args:
        state: State of the detector before its first step.
        initial: The weights.

    Raises:
        CheckpointError: An array of the stem or a stage is missing or has another shape.
    """
    own = to_arrays(state)
    taken = {}
    for name, array in own.items():
        given = initial.arrays.get(name)
        if not name.startswith(LEARNED):
            continue
        of_network = name.split("/")[1].startswith(("stem", "stage"))
        if given is None and not of_network:
            continue
        if given is None or given.shape != array.shape:
            found = "nothing" if given is None else f"shape {given.shape}"
            raise CheckpointError(
                f"{initial.workdir} has {found} for {name}, where the detector has shape {array.shape}; set "
                "--config.model.name and variants to those of its network"
            )
        taken[name] = np.asarray(given, array.dtype)
    mean = np.asarray(initial.arrays["image_mean"], np.float32)
    mean = mean.mean((0, 1)) if mean.ndim > 1 else mean
    state = state.replace(image_mean=mean)
    return from_arrays(state, own | taken | {"image_mean": mean})
