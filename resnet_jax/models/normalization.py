"""Batch normalization over groups of images, which may be part of a device's batch or span devices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.models.layers import Dtype, parameter_dtype, path_matches


class BatchNorm(nn.Module):
    """Batch normalization (arXiv 1502.03167) with statistics over groups of a stated number of images.

    A group may be part of a device's batch, all of it, or span devices; so a net computes the same function on any number of
    devices. The running statistics are those of the whole global batch: the mean of the groups' means, and by the law of total
    variance the mean of their variances plus the variance of their means.

    Attributes:
        use_running_average: Normalize with the running statistics and leave them alone (evaluation).
        group_size: Images per group; None is the whole global batch. The paper: 32 on ImageNet (8 GPUs × 32), 64 on CIFAR-10.
        axis_name: Mapped axis that the global batch is spread over; None where the batch is all on one device.
        momentum: Of the running statistics: running = momentum · running + (1 - momentum) · batch.
        epsilon: Added to the variance.
        variance: Of the running variance, "biased" (divided by N, as Caffe) or "unbiased" (by N - 1, as PyTorch). The batch is
            always normalized with the biased one.
        dtype: Of the output; statistics, scale and bias are kept in `parameter_dtype(dtype)`.
        scale_init: Initializer of the scale [C].
        frozen: Patterns of paths, see `path_matches`; a layer that one of them means normalizes with its running statistics in
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
        x = x.astype(
            stored
        )  # Here: within what is computed again it costs ResNet-50 on a TPU 1 % more bytes, by the compiler.
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), stored)
        running_variance = self.variable("batch_stats", "var", jnp.ones, (channels,), stored)
        scale = self.param("scale", self.scale_init, (channels,), stored)
        bias = self.param("bias", nn.initializers.zeros, (channels,), stored)

        frozen = path_matches("/".join(self.path), self.frozen)
        if self.use_running_average or frozen or self.is_initializing():
            mean, variance = running_mean.value[None], running_variance.value[None]
            return _normalize(x, mean, variance, scale, bias, self.epsilon).astype(self.dtype)
        mean, square = self._group_statistics(x)
        batch_mean, batch_variance = self._batch_statistics(mean, square, x.shape)
        running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * batch_mean
        running_variance.value = self.momentum * running_variance.value + (1 - self.momentum) * batch_variance
        return _normalize_by_moments(x, mean, square, scale, bias, self.epsilon).astype(self.dtype)

    def _group_statistics(self, x: Array) -> tuple[Array, Array]:
        """Returns the mean and mean square [groups, c] of each group."""
        images = x.shape[0]
        size, devices = self._group(images)
        check_group_size(size, images, devices)
        mean, square = _moments(x, images // min(size, images))
        if size > images:
            span = size // images
            neighbors = (
                None if span == devices else [list(range(i, i + span)) for i in range(0, devices, span)]
            )
            mean, square = (
                lax.psum(jnp.stack([mean, square]), self.axis_name, axis_index_groups=neighbors) / span
            )
        return mean, square

    def _group(self, images: int) -> tuple[int, int]:
        """Returns the images of a group, and the devices that the global batch is on."""
        devices = lax.axis_size(self.axis_name) if self.axis_name else 1
        return self.group_size or images * devices, devices

    def _batch_statistics(self, mean: Array, square: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Returns the mean and variance [c] of the global batch from the mean and mean square of its groups."""
        batch_mean, batch_square = lax.stop_gradient((mean.mean(0), square.mean(0)))
        size, devices = self._group(shape[0])
        if size < shape[0] * devices and devices > 1:
            batch_mean, batch_square = lax.pmean((batch_mean, batch_square), self.axis_name)
        count = shape[0] * devices * shape[1] * shape[2]
        if self.parts > 1:
            mean_so_far = self.variable("moments", "mean", jnp.zeros, batch_mean.shape, batch_mean.dtype)
            square_so_far = self.variable("moments", "var", jnp.zeros, batch_square.shape, batch_square.dtype)
            mean_so_far.value = batch_mean = mean_so_far.value + batch_mean / self.parts
            square_so_far.value = batch_square = square_so_far.value + batch_square / self.parts
            count *= self.parts
        batch_variance = jnp.maximum(batch_square - jnp.square(batch_mean), 0)
        if self.variance == "unbiased":
            batch_variance = batch_variance * (count / max(count - 1, 1))
        return batch_mean, batch_variance


def begin_at_zero(
    *, name: str, layer: str, norm: Callable[..., nn.Module] = BatchNorm, **options: Any
) -> nn.Module:
    """Makes a normalization; the layers of that name begin with the scale 0.

    For the last one of every block, which then begins as its shortcut (arXiv 1706.02677, §5.1).
    """
    return norm(name=name, **options | ({"scale_init": nn.initializers.zeros} if name == layer else {}))


def check_group_size(size: int, images: int, devices: int) -> None:
    """Raises ValueError unless `devices` devices of `images` images each can be cut into groups of `size` images."""
    fits_device = size > 0 and images % size == 0
    spans_devices = size > 0 and size % images == 0 and (images * devices) % size == 0
    if not (fits_device or spans_devices):
        raise ValueError(
            f"batch normalization over groups of {size} images does not fit {devices} device(s) with {images} images each; "
            f"the group must divide a device's images, or be a multiple of them that divides the global batch of {images * devices}"
        )


# Between the passes a normalization keeps its input and two vectors, and computes again what else its gradient needs. In a program
# without loops a compiler finds that for itself; a loop over blocks keeps every array that differentiation names.
_recomputed = partial(jax.checkpoint, prevent_cse=False)


@partial(_recomputed, static_argnums=1)
def _moments(x: Float[Array, "n h w c"], groups: int) -> tuple[Float[Array, "g c"], Float[Array, "g c"]]:
    """Returns the mean and the mean square of so many groups of images."""
    grouped = x.reshape(groups, -1, *x.shape[1:])
    return grouped.mean((1, 2, 3)), jnp.square(grouped).mean((1, 2, 3))


@partial(_recomputed, static_argnums=5)
def _normalize_by_moments(
    x: Array, mean: Array, square: Array, scale: Array, bias: Array, epsilon: float
) -> Array:
    """Returns what `_normalize` does, with the variance of these moments."""
    return _normalize(x, mean, jnp.maximum(square - jnp.square(mean), 0), scale, bias, epsilon)


def _normalize(
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
