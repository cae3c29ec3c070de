"""The layers that blocks are composed from, and what their factories have in common."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from resnet_jax.errors import UsageError
from resnet_jax.models.kernels.convolution import convolve

T = TypeVar("T")
# Makes a layer of the calling module: `conv(channels, (3, 3), stride, name="conv1")` or `norm(name="norm1")`.
LayerFactory = Callable[..., Callable[..., Array]]
# Makes a submodule of the calling module.
ModuleFactory = Callable[..., nn.Module]
# The non-linearity, element by element.
Activation = Callable[[Array], Array]
# What happens to F(x) before it is added. It is called inside the block, and layers that it makes are the
# block's.
Residual = Callable[[Array], Array]
# What comes between the last block and the head's average: `end(x, norm=…, activation=…)`.
End = Callable[..., Array]

# He initialization (arXiv 1502.01852, eq. 10): zero-mean normal, variance 2 / fan_in, the gain of a ReLU.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class ModelError(UsageError, ValueError):
    """A name or an option of a model that does not exist, or images that it cannot take."""


def parameter_dtype(dtype: DTypeLike) -> DTypeLike:
    """Returns the dtype of parameters, statistics and logits: float64 if `dtype` is, else float32."""
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32


def unchanged(y: Array) -> Array:
    """Returns the array as it is."""
    return y


class Conv(nn.Module):
    """Convolution without bias, with explicit symmetric padding of (size - 1) / 2 pixels (Table 1).

    Takes [N, H, W, C] and gives [N, ceil(H / stride), ceil(W / stride), channels]. 'SAME' would pad a strided
    convolution on other sides and be another network.

    Attributes:
        channels: Number of filters.
        size: Height and width of the kernel in pixels, both odd.
        stride: Step of the kernel in pixels, the same in both directions.
        groups: Number of groups of input and output channels; each filter sees those of its group
            (arXiv 1611.05431).
        dtype: Dtype of the computation; the kernel is kept in `parameter_dtype(dtype)`.
        kernel_init: Initializer of the kernel [height, width, C / groups, channels].
        transform: What happens to the kernel before it is used.
    """

    channels: int
    size: tuple[int, int]
    stride: int = 1
    groups: int = 1
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = he_normal
    transform: Callable[[Array], Array] = unchanged

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        groups, into = self.groups, x.shape[-1]
        if groups < 1 or into % groups or self.channels % groups:
            raise ModelError(
                f"a convolution from {into} to {self.channels} channels cannot be cut into {groups} groups; "
                "take a divisor of both"
            )
        shape = (*self.size, x.shape[-1] // self.groups, self.channels)
        kernel = self.param("kernel", self.kernel_init, shape, parameter_dtype(self.dtype))
        kernel = self.transform(kernel).astype(self.dtype)
        return convolve(x.astype(self.dtype), kernel, self.stride, self.groups)


def path_matches(path: str, patterns: Iterable[str]) -> bool:
    """Returns whether a pattern means the path or a module around it.

    `stage1` and `stage*/block1` both mean `stage1/block1/norm1`.
    """
    parts = path.split("/")
    ancestors = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    return any(fnmatchcase(ancestor, pattern) for pattern in patterns for ancestor in ancestors)


def scale_input(images: Float[Array, "n h w 3"], scale: tuple[float, ...] | None) -> Float[Array, "n h w 3"]:
    """Returns the images with every channel times its factor; as they are for None, the paper's."""
    return images if scale is None else images * jnp.asarray(scale, images.dtype)


def unwrap_factory(factory: Callable[..., T]) -> tuple[Callable[..., T], dict[str, Any]]:
    """Returns the class that a factory makes, and the options that it was given."""
    return (factory.func, dict(factory.keywords)) if isinstance(factory, partial) else (factory, {})


def no_norm(**_: object) -> Callable[[Array], Array]:
    """Makes no normalization: for a block to hand to a stem or a shortcut."""
    return unchanged


def without_end(x: Array, **_: object) -> Array:
    """Nothing comes between the last block and the head's average."""
    return x


def global_average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Returns the mean over all pixels, in float32 at least."""
    return x.astype(parameter_dtype(x.dtype)).mean((1, 2))
