"""The loss of a net as a function of its parameters alone."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

Params = Any
"""A tree of arrays."""

Variables = dict[str, Any]
"""`params`, and `batch_stats` where the net has them."""

Loss = Callable[[Params], Float[Array, ""]]
"""A scalar function of the parameters."""


def cross_entropy(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "n h w 3"],
    labels: Int[Array, " n"],
    *,
    batch_statistics: bool = False,
) -> Loss:
    """Returns the mean cross-entropy of these examples as a function of the parameters; without weight decay.

    Args:
        model: Takes the images.
        variables: Whose running statistics are used, and held.
        images: Normalised.
        labels: Of the images.
        batch_statistics: Normalise with the statistics of the images, as in training; they depend on the parameters.

    Example:
        >>> loss = cross_entropy(model, variables, images, labels)
        >>> gradient = jax.grad(loss)(variables["params"])
    """
    held = {name: collection for name, collection in variables.items() if name != "params"}

    def loss(params: Params) -> Array:
        applied = {"params": params, **held}
        if batch_statistics:
            logits: Any = model.apply(applied, images, train=True, mutable=list(held))[0]
        else:
            logits = model.apply(applied, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss


def error(logits: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Returns the share of examples whose likeliest class is not the label; logits may be any scores, such as probabilities."""
    return jnp.mean(jnp.argmax(logits, -1) != labels)
