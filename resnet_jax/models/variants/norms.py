"""Group normalization, convolutions with standardized weights, and no normalization."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from resnet_jax.models.layers import parameter_dtype


class GroupNorm(nn.Module):
    """Group normalization: each image is normalized over groups of its channels (arXiv 1803.08494).

    Attributes:
        groups: Groups of channels, 32 in the paper; fewer if a group would have less than two.
        epsilon: Added to the variance.
        dtype: Dtype of the output; moments, scale and bias are in `parameter_dtype(dtype)`.
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


def group_norm(
    *,
    groups: int,
    dtype: DTypeLike,
    name: str,
    epsilon: float = GroupNorm.epsilon,
    scale_init: nn.initializers.Initializer = GroupNorm.scale_init,
    **_: object,
) -> nn.Module:
    """Makes a GroupNorm where a net asks for batch normalization; the other options of that are ignored."""
    return GroupNorm(groups, epsilon, dtype, scale_init, name=name)


def standardize_filters(kernel: Float[Array, "a b i k"]) -> Float[Array, "a b i k"]:
    """Returns filters with mean 0 and variance 1 over what they see (arXiv 1903.10520, eq. 5)."""
    kernel = kernel - kernel.mean((0, 1, 2))
    return kernel * lax.rsqrt(jnp.square(kernel).mean((0, 1, 2)) + 1e-5)


class Bias(nn.Module):
    """Adds a learned number to every channel, in place of a normalization: [N, H, W, C] → the same."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return x + self.param(
            "bias", nn.initializers.zeros, (x.shape[-1],), parameter_dtype(self.dtype)
        ).astype(self.dtype)


def bias(*, dtype: DTypeLike, name: str, **_: object) -> nn.Module:
    """Makes a Bias where a net asks for batch normalization."""
    return Bias(dtype, name=name)
