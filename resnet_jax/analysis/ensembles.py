"""Several nets as one function: `vmap` over their variables."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from resnet_jax.analysis.losses import Variables
from resnet_jax.models import ModelError


def stack_variables(members: Sequence[Variables]) -> Variables:
    """Returns the variables of several nets of one architecture, every array with a first axis [members].

    Raises:
        ModelError: There are none, or they are of different nets.
    """
    if not members:
        raise ModelError("an ensemble needs a member or more, and there is none")
    shapes = [
        {path: array.shape for path, array in flatten_dict(member, sep="/").items()} for member in members
    ]
    different = next((number for number, shape in enumerate(shapes) if shape != shapes[0]), None)
    if different is not None:
        raise ModelError(f"member {different} is of another net than member 0; members have one architecture")
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *members)


def member_logits(
    model: nn.Module, stacked: Variables, images: Float[Array, "n h w 3"]
) -> Float[Array, "m n c"]:
    """Returns the logits of every member; a pure function, one program for all of them.

    Args:
        model: Of every member.
        stacked: See `stack_variables`.
        images: Normalized, the same for all.
    """

    def of_one(variables: Variables) -> Array:
        logits: Array = model.apply(variables, images)  # type: ignore[assignment]
        return logits

    return jax.vmap(of_one)(stacked)


def ensemble_probabilities(
    model: nn.Module, stacked: Variables, images: Float[Array, "n h w 3"]
) -> Float[Array, "n c"]:
    """Returns the mean over the members of their probabilities.

    Example:
        >>> members = [load_checkpoint(f"runs/compare/ResNet-20/seed{seed}")[1] for seed in range(3)]
        >>> probabilities = ensemble_probabilities(model, stack_variables(members), images)
    """
    return jax.nn.softmax(member_logits(model, stacked, images)).mean(0)
