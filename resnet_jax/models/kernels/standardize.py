"""The arithmetic of batch normalization, with what its gradient needs computed again instead of kept."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Between the passes a normalization keeps its input and two vectors, and computes again what else its
# gradient needs. In a program without loops a compiler finds that for itself; a loop over blocks keeps every
# array that differentiation names.
_recomputed = partial(jax.checkpoint, prevent_cse=False)


@partial(_recomputed, static_argnums=1)
def group_moments(x: Float[Array, "n h w c"], groups: int) -> tuple[Float[Array, "g c"], Float[Array, "g c"]]:
    """Returns the mean and the mean square of this many groups of images."""
    grouped = x.reshape(groups, -1, *x.shape[1:])
    return grouped.mean((1, 2, 3)), jnp.square(grouped).mean((1, 2, 3))


@partial(_recomputed, static_argnums=5)
def standardize_by_moments(
    x: Array, mean: Array, square: Array, scale: Array, bias: Array, epsilon: float
) -> Array:
    """Returns what `standardize` does, with the variance of these moments."""
    return standardize(x, mean, jnp.maximum(square - jnp.square(mean), 0), scale, bias, epsilon)


def standardize(
    x: Float[Array, "n h w c"],
    mean: Float[Array, "g c"],
    variance: Float[Array, "g c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
) -> Float[Array, "n h w c"]:
    """Returns scale · (x - mean) / √(variance + epsilon) + bias with the statistics of each of g groups."""
    multiplier = scale * lax.rsqrt(variance + epsilon)
    offset = bias - mean * multiplier
    grouped = x.reshape(len(mean), -1, *x.shape[1:])
    per_group = (slice(None), None, None, None)
    return (grouped * multiplier[per_group] + offset[per_group]).reshape(x.shape)
