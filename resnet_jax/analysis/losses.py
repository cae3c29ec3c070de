"""The loss of a network as a function of its parameters alone."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

Params: TypeAlias = PyTree[Float[Array, "..."]]
"""A tree of arrays."""

Variables = Mapping[str, Params]
"""`params`, and `batch_stats` where the network has them."""

ParamsLoss = Callable[[Params], Float[Array, ""]]
"""A scalar function of the parameters."""


def loss_function(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "n h w 3"],
    labels: Int[Array, " n"],
    *,
    batch_statistics: bool = False,
) -> ParamsLoss:
    """Returns the mean cross-entropy of these examples as a function of the parameters; without weight decay.

    Args:
        model: Network that takes the images.
        variables: Its variables, whose running statistics are held fixed.
        images: Normalized images.
        labels: Their labels.
        batch_statistics: Normalize with the statistics of the images, as in training; they depend on the
            parameters. Dropout, where the network has it, is then active, with one fixed key.

    Example:
        >>> loss = loss_function(model, variables, images, labels)
        >>> gradient = jax.grad(loss)(variables["params"])
    """
    held = {name: collection for name, collection in variables.items() if name != "params"}

    def loss(params: Params) -> Array:
        applied = {"params": params, **held}
        if batch_statistics:
            dropout = {"dropout": jax.random.key(0)}
            logits, _ = model.apply(applied, images, train=True, mutable=list(held), rngs=dropout)
        else:
            logits = model.apply(applied, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss


def error_rate(logits: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Returns the share of examples whose likeliest class, by logits or other scores, is not the label."""
    return jnp.mean(jnp.argmax(logits, -1) != labels)
