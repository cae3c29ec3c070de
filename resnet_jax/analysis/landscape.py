"""A slice of the loss landscape along filter-normalized directions (arXiv 1712.09913)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.analysis.losses import Params, ParamsLoss


def filter_normalized_direction(params: Params, *, seed: int) -> Params:
    """Returns a random direction whose filters have the norms of the network's (§4 of arXiv 1712.09913).

    d_j ← d_j ‖θ_j‖ / ‖d_j‖ with d drawn from a normal distribution; a filter is a kernel's part for one
    output, of convolutions and of fully connected layers. Biases, and scale and bias of normalization, do not
    move. So slices of nets whose weights are of different size, which normalization makes one function, can
    be compared.

    Args:
        params: Of every block by itself (not stacked).
        seed: Of the draw.
    """
    arrays, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(arrays))
    return jax.tree.unflatten(
        structure, [_direction(array, key) for array, key in zip(arrays, keys, strict=True)]
    )


def _direction(array: Array, key: jax.Array) -> Array:
    if array.ndim < 2:
        return jnp.zeros_like(array)
    drawn = jax.random.normal(key, array.shape, array.dtype)
    of_array, of_drawn = (
        jnp.sqrt(jnp.sum(jnp.square(x), axis=tuple(range(x.ndim - 1)))) for x in (array, drawn)
    )
    return drawn * (of_array / of_drawn)


def loss_slice(
    loss: ParamsLoss, params: Params, directions: Sequence[Params], coordinates: Sequence[Float[Array, " n"]]
) -> Float[Array, "..."]:
    """Returns the loss at `params` + Σ aᵢ dᵢ for all combinations of coordinates, an axis for each direction.

    Args:
        loss: For example `loss_function(…)`.
        params: The middle of the slice.
        directions: One for a line, two for a plane.
        coordinates: The aᵢ of each direction.

    Example:
        >>> along = jnp.linspace(-1, 1, 21)
        >>> losses = loss_slice(loss, params, [first, second], [along, along])  # float32[21, 21]
    """
    grid = jnp.stack(jnp.meshgrid(*map(jnp.asarray, coordinates), indexing="ij"), axis=-1)

    def at(point: Float[Array, " directions"]) -> Array:
        moved = params
        for coordinate, direction in zip(point, directions, strict=True):
            moved = jax.tree.map(lambda p, d, a=coordinate: p + a.astype(p.dtype) * d, moved, direction)
        return loss(moved)

    flat: Array = lax.map(at, grid.reshape(-1, len(directions)))
    return flat.reshape(grid.shape[:-1])
