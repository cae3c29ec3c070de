"""Batch normalization over groups of images, which may be part of a device's batch or span devices."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from resnet_jax.models.kernels.standardize import group_moments, standardize, standardize_by_moments
from resnet_jax.models.layers import LayerFactory, parameter_dtype, path_matches


class Moments(NamedTuple):
    """Mean and mean square [C] of a batch, and the number of values per channel that they are taken over."""

    mean: Array
    square: Array
    values: int


def of_one_batch(layer: nn.Module, moments: Moments) -> Moments:  # noqa: ARG001
    """The batch is computed at once: its moments are complete."""
    return moments


class BatchNorm(nn.Module):
    """Batch normalization (arXiv 1502.03167) with statistics over groups of a stated number of images.

    A group may be part of a device's batch, all of it, or span devices; so a net computes the same function
    on any number of devices. The running statistics are those of the whole global batch: the mean of the
    groups' means, and by the law of total variance the mean of their variances plus the variance of their
    means.

    Attributes:
        use_running_average: Normalize with the running statistics and leave them alone (evaluation).
        group_size: Images per group; None is the whole global batch. The paper: 32 on ImageNet (8 GPUs × 32),
            64 on CIFAR-10.
        axis_name: Mapped axis that the global batch is spread over; None where the batch is all on one
            device.
        momentum: Momentum of the statistics: running = momentum · running + (1 - momentum) · batch.
        epsilon: Added to the variance.
        variance: Running variance: "biased" (divided by N, as Caffe) or "unbiased" (by N - 1, as
            PyTorch). The batch is always normalized with the biased one.
        dtype: Dtype of the output; statistics, scale and bias are kept in `parameter_dtype(dtype)`.
        scale_init: Initializer of the scale [C].
        gather: Makes the moments of the whole batch from those of the images at hand, given the layer; see
            `over_micro_batches`.
    """

    use_running_average: bool
    group_size: int | None = None
    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    variance: str = "biased"
    dtype: DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    gather: Callable[[nn.Module, Moments], Moments] = of_one_batch

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], *, use_running_average: bool | None = None
    ) -> Float[Array, "n h w c"]:
        """Returns the normalized images; `use_running_average` overrides the attribute."""
        stored = parameter_dtype(self.dtype)
        # The cast is here: within what is computed again, it costs ResNet-50 on a TPU 1 % more bytes, by the
        # compiler.
        x = x.astype(stored)
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), stored)
        running_variance = self.variable("batch_stats", "var", jnp.ones, (channels,), stored)
        scale = self.param("scale", self.scale_init, (channels,), stored)
        bias = self.param("bias", nn.initializers.zeros, (channels,), stored)

        frozen = self.use_running_average if use_running_average is None else use_running_average
        if frozen or self.is_initializing():
            mean, variance = running_mean.value[None], running_variance.value[None]
            return standardize(x, mean, variance, scale, bias, self.epsilon).astype(self.dtype)
        mean, square = self._group_statistics(x)
        batch_mean, batch_variance = self._batch_statistics(mean, square, x.shape)
        running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * batch_mean
        running_variance.value = self.momentum * running_variance.value + (1 - self.momentum) * batch_variance
        return standardize_by_moments(x, mean, square, scale, bias, self.epsilon).astype(self.dtype)

    def _group_statistics(self, x: Array) -> tuple[Array, Array]:
        """Returns the mean and mean square [groups, c] of each group."""
        images = x.shape[0]
        size, devices = self._group(images)
        check_group_size(size, images, devices)
        mean, square = group_moments(x, images // min(size, images))
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
        """Returns the mean and variance [c] of the global batch from the moments of its groups."""
        batch_mean, batch_square = lax.stop_gradient((mean.mean(0), square.mean(0)))
        size, devices = self._group(shape[0])
        if size < shape[0] * devices and devices > 1:
            batch_mean, batch_square = lax.pmean((batch_mean, batch_square), self.axis_name)
        count = shape[0] * devices * shape[1] * shape[2]
        batch_mean, batch_square, count = self.gather(self, Moments(batch_mean, batch_square, count))
        batch_variance = jnp.maximum(batch_square - jnp.square(batch_mean), 0)
        if self.variance == "unbiased":
            batch_variance = batch_variance * (count / max(count - 1, 1))
        return batch_mean, batch_variance


def over_micro_batches(layer: nn.Module, moments: Moments, *, parts: int) -> Moments:
    """Returns the moments of a batch that comes in micro-batches (gradient accumulation).

    The collection `moments`, shaped like `batch_stats` and zero before the first micro-batch, gathers them.
    Given the running statistics from before the step with every micro-batch, the updated ones are right after
    the last.

    Args:
        layer: Normalization layer whose variables gather the moments.
        moments: Moments of the current micro-batch.
        parts: Number of micro-batches.
    """
    mean = layer.variable("moments", "mean", jnp.zeros, moments.mean.shape, moments.mean.dtype)
    square = layer.variable("moments", "var", jnp.zeros, moments.square.shape, moments.square.dtype)
    mean.value = mean.value + moments.mean / parts
    square.value = square.value + moments.square / parts
    return Moments(mean.value, square.value, moments.values * parts)


def freeze_statistics(
    *, norm: LayerFactory, patterns: Iterable[str], **options: object
) -> Callable[[Array], Array]:
    """Makes a normalization; if a pattern names it, training uses its running statistics, unchanged.

    Args:
        norm: Makes the layer. Where it has running statistics, it takes `use_running_average` when it is
            called.
        patterns: Patterns of paths; see `path_matches`.
        **options: Options of the layer.
    """
    layer = norm(**options)
    if not isinstance(layer, nn.Module) or not layer.has_variable("batch_stats", "mean"):
        return layer
    return partial(layer, use_running_average=True) if path_matches("/".join(layer.path), patterns) else layer


def begin_at_zero(
    *, name: str, layer: str, norm: LayerFactory = BatchNorm, **options: object
) -> Callable[..., Array]:
    """Makes a normalization; layers of that name begin with the scale 0 (zero-init gamma).

    Given the last layer of every block, a block begins as its shortcut (arXiv 1706.02677, §5.1).
    """
    return norm(name=name, **options | ({"scale_init": nn.initializers.zeros} if name == layer else {}))


def check_group_size(size: int, images: int, devices: int) -> None:
    """Raises ValueError unless devices with this many images each can be cut into groups of `size` images."""
    fits_device = size > 0 and images % size == 0
    spans_devices = size > 0 and size % images == 0 and (images * devices) % size == 0
    if not (fits_device or spans_devices):
        raise ValueError(
            f"batch normalization over groups of {size} images does not fit {devices} device(s) with "
            f"{images} images each; the group must divide a device's images, or be a multiple of them that "
            f"divides the global batch of {images * devices}"
        )
