"""Stems and shortcuts that do not skip pixels: those of ResNet-D, and blurred ones."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.models.kernels.pooling import max_pool
from resnet_jax.models.layers import LayerFactory
from resnet_jax.models.shortcuts import Shortcut
from resnet_jax.models.stems import Stem


class DeepStem(Stem):
    """Three 3×3 convolutions and a 3×3 maximum, the first and the last with stride 2.

    See arXiv 1812.01187, Fig. 2, ResNet-C. The first two convolutions have half the channels.
    """

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h2 w2 c"]:
        x = images
        for number, (channels, stride) in enumerate(
            [(self.channels // 2, 2), (self.channels // 2, 1), (self.channels, 1)], start=1
        ):
            x = self.conv(channels, (3, 3), stride, name=f"conv{number}")(x)
            x = self.activation(self.norm(name=f"norm{number}")(x))
        return max_pool(x, size=3, stride=2, padding=1)


def average_pool(x: Float[Array, "n h w c"], stride: int) -> Float[Array, "n h2 w2 c"]:
    """Returns means over windows of stride × stride pixels; beyond the edge there is nothing to count."""
    missing = [(0, -side % stride) for side in x.shape[1:3]]

    def total(x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0), *missing, (0, 0)])
        rows, columns = padded.shape[1] // stride, padded.shape[2] // stride
        return padded.reshape(x.shape[0], rows, stride, columns, stride, -1).sum((2, 4))

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def blur_pool(x: Float[Array, "n h w c"], stride: int) -> Float[Array, "n h2 w2 c"]:
    """Returns every stride-th pixel after the filter 1-2-1 down and across (arXiv 1904.11486)."""
    for axis in (1, 2):
        around = [(1, 1) if each == axis else (0, 0) for each in range(4)]
        padded = jnp.pad(x, around, mode="reflect" if x.shape[axis] > 1 else "edge")
        taken = [lax.slice_in_dim(padded, start, start + x.shape[axis], stride, axis) for start in range(3)]
        x = (taken[0] + 2 * taken[1] + taken[2]) / 4
    return x


def pooled_shortcut(shortcut: Shortcut, pool: Callable[[Array, int], Array]) -> Shortcut:
    """Returns the shortcut behind a pool that takes over its stride."""

    def around(
        x: Array, *, channels: int, stride: int, conv: LayerFactory, norm: LayerFactory
    ) -> Array | float:
        return shortcut(
            x if stride == 1 else pool(x, stride), channels=channels, stride=1, conv=conv, norm=norm
        )

    return around
