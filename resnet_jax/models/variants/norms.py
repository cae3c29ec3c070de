"""Normalization of every image by itself, convolutions with standardized weights, and no normalization."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from resnet_jax.models.kernels.convolution import convolve
from resnet_jax.models.layers import Conv, check_groups, parameter_dtype


class GroupNorm(nn.Module):
    """Normalizes every image by itself over groups of its channels (arXiv 1803.08494): [N, H, W, C] → the same.

    Attributes:
        groups: Of channels, 32 in the paper; fewer where a group would have less than two.
        epsilon: Added to the variance.
        dtype: Of the output; moments, scale and bias are in `parameter_dtype(dtype)`.
        scale_init: Initializer of the scale [C].
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        stored, channels = parameter_dtype(self.dtype), x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), stored)
        bias = self.param("bias", nn.initializers.zeros, (channels,), stored)
        groups = math.gcd(self.groups, max(1, channels // 2))
        cut = x.astype(stored).reshape(*x.shape[:3], groups, -1)
        mean = cut.mean((1, 2, 4), keepdims=True)
        variance = jnp.square(cut - mean).mean((1, 2, 4), keepdims=True)
        normalized = ((cut - mean) * lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
        return (normalized * scale + bias).astype(self.dtype)


def group_norm(*, groups: int, dtype: DTypeLike, name: str, **options: Any) -> nn.Module:
    """Makes a GroupNorm where a net asks for batch normalization; of its options `epsilon` and `scale_init` mean something here."""
    kept = {key: value for key, value in options.items() if key in ("epsilon", "scale_init")}
    return GroupNorm(groups, dtype=dtype, name=name, **kept)


class StandardizedConv(Conv):
    """A convolution whose filters have mean 0 and variance 1 over what they see (arXiv 1903.10520, eq. 5); otherwise a Conv."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        check_groups(self.groups, x.shape[-1], self.channels)
        shape = (*self.size, x.shape[-1] // self.groups, self.channels)
        kernel = self.param("kernel", self.kernel_init, shape, parameter_dtype(self.dtype))
        kernel = kernel - kernel.mean((0, 1, 2))
        kernel = kernel * lax.rsqrt(jnp.square(kernel).mean((0, 1, 2)) + 1e-5)
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.groups)


class Bias(nn.Module):
    """Adds a learned number to every channel, where a net without normalization has a norm: [N, H, W, C] → the same."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return x + self.param(
            "bias", nn.initializers.zeros, (x.shape[-1],), parameter_dtype(self.dtype)
        ).astype(self.dtype)


def bias(*, dtype: DTypeLike, name: str, **_: Any) -> nn.Module:
    """Makes a Bias where a net asks for batch normalization."""
    return Bias(dtype, name=name)
