"""The parts that blocks are composed from: convolution, batch normalisation, pooling, shortcuts A, B and C."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.models.convolution import convolve

Dtype = Any
LayerFactory = Callable[..., Callable[[Array], Array]]
"""Makes a layer of the calling module: `conv(channels, (3, 3), stride, name="conv1")` or `norm(name="norm1")`."""

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""He initialisation (arXiv 1502.01852, eq. 10): zero-mean normal, variance 2 / fan_in, the gain of a ReLU."""


class ModelError(ValueError):
    """A name or an option of a model that does not exist, or images that it cannot take."""


def parameter_dtype(dtype: Dtype) -> Dtype:
    """Returns the dtype of parameters, statistics and logits: float64 where `dtype` is float64, else float32."""
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32


class Conv(nn.Module):
    """Convolution without bias, with explicit symmetric padding of (size - 1) / 2 pixels (Table 1).

    Takes [N, H, W, C] and gives [N, ceil(H / stride), ceil(W / stride), channels]. 'SAME' would pad a strided convolution on
    other sides and be another network.

    Attributes:
        channels: Number of filters.
        size: Height and width of the kernel in pixels, both odd.
        stride: Step of the kernel in pixels, the same in both directions.
        dtype: Of the computation; the kernel is kept in `parameter_dtype(dtype)`.
        kernel_init: Initialiser of the kernel [height, width, C, channels].
    """

    channels: int
    size: tuple[int, int]
    stride: int = 1
    dtype: Dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = he_normal

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        shape = (*self.size, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape, parameter_dtype(self.dtype))
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


class BatchNorm(nn.Module):
    """Batch normalisation (arXiv 1502.03167) with statistics over groups of a stated number of images.

    A group may be part of a device's batch, all of it, or span devices; so a net computes the same function on any number of
    devices. The running statistics are those of the whole global batch: the mean of the groups' means, and by the law of total
    variance the mean of their variances plus the variance of their means.

    Attributes:
        use_running_average: Normalise with the running statistics and leave them alone (evaluation).
        group_size: Images per group; None is the whole global batch. The paper: 32 on ImageNet (8 GPUs × 32), 64 on CIFAR-10.
        axis_name: Mapped axis that the global batch is spread over; None where the batch is all on one device.
        momentum: Of the running statistics: running = momentum · running + (1 - momentum) · batch.
        epsilon: Added to the variance.
        variance: Of the running variance, "biased" (divided by N, as Caffe) or "unbiased" (by N - 1, as PyTorch). The batch is
            always normalised with the biased one.
        dtype: Of the output; statistics, scale and bias are kept in `parameter_dtype(dtype)`.
        scale_init: Initialiser of the scale [C].
        frozen: Patterns of paths, see `path_matches`; a layer that one of them means normalises with its running statistics in
            training too, and leaves them alone.
        parts: Parts that the global batch comes in, one after the other. The collection `moments`, shaped like `batch_stats` and
            zero before the first part, gathers what the running statistics are updated with: given those from before the step
            with every part, they are right after the last.
    """

    use_running_average: bool
    group_size: int | None = None
    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    variance: str = "biased"
    dtype: Dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    frozen: tuple[str, ...] = ()
    parts: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        stored = parameter_dtype(self.dtype)
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), stored)
        running_variance = self.variable("batch_stats", "var", jnp.ones, (channels,), stored)
        scale = self.param("scale", self.scale_init, (channels,), stored)
        bias = self.param("bias", nn.initializers.zeros, (channels,), stored)

        frozen = path_matches("/".join(self.path), self.frozen)
        if self.use_running_average or frozen or self.is_initializing():
            groups = x[None]
            mean, variance = running_mean.value[None], running_variance.value[None]
        else:
            groups, mean, variance = self._group_statistics(x.astype(stored))
            batch_mean, batch_variance = self._batch_statistics(mean, variance, x.shape)
            running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * batch_mean
            running_variance.value = self.momentum * running_variance.value + (1 - self.momentum) * batch_variance

        multiplier = scale * lax.rsqrt(variance + self.epsilon)
        offset = bias - mean * multiplier
        per_group = (slice(None), None, None, None)
        normalised = groups.astype(stored) * multiplier[per_group] + offset[per_group]
        return normalised.reshape(x.shape).astype(self.dtype)

    def _group_statistics(self, x: Array) -> tuple[Array, Array, Array]:
        """Returns x as [groups, n, h, w, c], and the mean and biased variance [groups, c] of each group."""
        images = x.shape[0]
        devices = lax.axis_size(self.axis_name) if self.axis_name else 1
        size = self.group_size or images * devices
        check_group_size(size, images, devices)
        groups = x.reshape(-1, min(size, images), *x.shape[1:])
        moments = jnp.stack([groups.mean((1, 2, 3)), jnp.square(groups).mean((1, 2, 3))])
        if size > images:
            span = size // images
            neighbours = None if span == devices else [list(range(i, i + span)) for i in range(0, devices, span)]
            moments = lax.psum(moments, self.axis_name, axis_index_groups=neighbours) / span
        mean, square = moments
        return groups, mean, jnp.maximum(square - jnp.square(mean), 0)

    def _batch_statistics(self, mean: Array, variance: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Returns the mean and variance [c] of the global batch from those of its groups."""
        moments = jnp.stack([mean.mean(0), (variance + jnp.square(mean)).mean(0)])
        count = shape[0] * shape[1] * shape[2]
        if self.axis_name:
            moments = lax.pmean(moments, self.axis_name)
            count *= lax.axis_size(self.axis_name)
        batch_mean, square = lax.stop_gradient(moments)
        if self.parts > 1:
            mean_so_far = self.variable("moments", "mean", jnp.zeros, batch_mean.shape, batch_mean.dtype)
            square_so_far = self.variable("moments", "var", jnp.zeros, square.shape, square.dtype)
            mean_so_far.value = batch_mean = mean_so_far.value + batch_mean / self.parts
            square_so_far.value = square = square_so_far.value + square / self.parts
            count *= self.parts
        batch_variance = jnp.maximum(square - jnp.square(batch_mean), 0)
        if self.variance == "unbiased":
            batch_variance = batch_variance * (count / max(count - 1, 1))
        return batch_mean, batch_variance


def path_matches(path: str, patterns: Iterable[str]) -> bool:
    """Returns whether a pattern means the path or a module around it: `stage1` and `stage*/block1` mean `stage1/block1/norm1`."""
    parts = path.split("/")
    ancestors = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    return any(fnmatchcase(ancestor, pattern) for pattern in patterns for ancestor in ancestors)


def check_group_size(size: int, images: int, devices: int) -> None:
    """Raises ValueError unless `devices` devices of `images` images each can be cut into groups of `size` images."""
    fits_device = size > 0 and images % size == 0
    spans_devices = size > 0 and size % images == 0 and (images * devices) % size == 0
    if not (fits_device or spans_devices):
        raise ValueError(
            f"batch normalisation over groups of {size} images does not fit {devices} device(s) with {images} images each; "
            f"the group must divide a device's images, or be a multiple of them that divides the global batch of {images * devices}"
        )


def scale_input(images: Float[Array, "n h w 3"], scale: tuple[float, ...] | None) -> Float[Array, "n h w 3"]:
    """Returns the images with every channel times its factor; as they are for None, the paper's."""
    return images if scale is None else images * jnp.asarray(scale, images.dtype)


class Shortcut(Protocol):
    """The path around a block: from its input, and what its output is to be, to what is added to F(x) (eq. 1 and 2)."""

    def __call__(self, x: Array, *, channels: int, stride: int, conv: LayerFactory, norm: LayerFactory) -> Array | float: ...


def identity_or_padding(
    x: Float[Array, "n h w c"], *, channels: int, stride: int, conv: LayerFactory, norm: LayerFactory
) -> Float[Array, "n h2 w2 k"]:
    """Option A: identity; where dimensions rise, every stride-th pixel with zeros for the new channels. No parameters."""
    del conv, norm
    return jnp.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(0, channels - x.shape[-1])])


def projection(
    x: Float[Array, "n h w c"], *, channels: int, stride: int, conv: LayerFactory, norm: LayerFactory
) -> Float[Array, "n h2 w2 k"]:
    """Option C: a 1×1 convolution and its normalisation, everywhere."""
    x = conv(channels, (1, 1), stride, name="projection")(x)
    return norm(name="projection_norm")(x)


def identity_or_projection(
    x: Float[Array, "n h w c"], *, channels: int, stride: int, conv: LayerFactory, norm: LayerFactory
) -> Float[Array, "n h2 w2 k"]:
    """Option B: a projection where dimensions rise, identity elsewhere."""
    if x.shape[-1] == channels and stride == 1:
        return x
    return projection(x, channels=channels, stride=stride, conv=conv, norm=norm)


def no_shortcut(x: Array, *, channels: int, stride: int, conv: LayerFactory, norm: LayerFactory) -> float:
    """Nothing is added: the plain nets of the paper."""
    del x, channels, stride, conv, norm
    return 0.0


SHORTCUTS: dict[str, Shortcut] = {
    "A": identity_or_padding,
    "B": identity_or_projection,
    "C": projection,
    "none": no_shortcut,
}
"""The shortcut options of §3.3 by their letter, and "none" for the plain nets."""


def global_average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Returns the mean over all pixels, in float32 at least."""
    return x.astype(parameter_dtype(x.dtype)).mean((1, 2))
