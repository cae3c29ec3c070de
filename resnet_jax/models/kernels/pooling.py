"""The maximum over windows, with a gradient of its own on CPU, as `kernels.convolution` has."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[int, int]


def max_pool(
    x: Float[Array, "n h w c"], size: int, stride: int, padding: int | Padding
) -> Float[Array, "n h2 w2 c"]:
    """Returns the maximum over windows of size × size pixels, with minus infinity around the image.

    Args:
        x: Images or activations.
        size: Height and width of a window.
        stride: From one window to the next.
        padding: Pixels on every side; or a pair, before (top, left) and after (bottom, right).
    """
    return _pool(x, size, stride, (padding, padding) if isinstance(padding, int) else padding)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool(x: Array, size: int, stride: int, padding: Padding) -> Array:
    return _max_pool(x, size, stride, padding)


def _max_pool(x: Array, size: int, stride: int, padding: Padding) -> Array:
    around = [(0, 0), padding, padding, (0, 0)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), around)


def _forward(x: Array, size: int, stride: int, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    pooled = _max_pool(x, size, stride, padding)
    return pooled, (x, pooled)


def _backward(
    size: int, stride: int, padding: Padding, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array]:
    cpu = partial(_by_places, size=size, stride=stride, padding=padding)
    default = partial(_xla_gradient, size=size, stride=stride, padding=padding)
    return (lax.platform_dependent(*saved, gradient, cpu=cpu, default=default),)


_pool.defvjp(_forward, _backward)


def _xla_gradient(x: Array, _: Array, gradient: Array, *, size: int, stride: int, padding: Padding) -> Array:
    return jax.vjp(partial(_max_pool, size=size, stride=stride, padding=padding), x)[1](gradient)[0]


def _by_places(
    x: Array, pooled: Array, gradient: Array, *, size: int, stride: int, padding: Padding
) -> Array:
    """Returns the gradient as a sum over the places in a window; the first of equal maxima gets it."""
    before, after = padding
    padded = lax.pad(
        x, jnp.array(-jnp.inf, x.dtype), [(0, 0, 0), (before, after, 0), (before, after, 0), (0, 0, 0)]
    )
    height, width = ((out - 1) * stride + 1 for out in gradient.shape[1:3])
    zero = jnp.zeros((), gradient.dtype)
    taken = jnp.zeros(pooled.shape, bool)
    total = jnp.zeros(padded.shape, gradient.dtype)
    for row in range(size):
        for column in range(size):
            place = padded[:, row : row + height : stride, column : column + width : stride]
            first = (place == pooled) & ~taken
            taken |= first
            rest = padded.shape[1] - row - height, padded.shape[2] - column - width
            spread = [(0, 0, 0), (row, rest[0], stride - 1), (column, rest[1], stride - 1), (0, 0, 0)]
            total += lax.pad(jnp.where(first, gradient, 0), zero, spread)
    return total[:, before : before + x.shape[1], before : before + x.shape[2]]
