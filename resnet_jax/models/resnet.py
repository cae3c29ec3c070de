"""Residual and plain nets as stem, stages and head: the ImageNet family (Table 1) and the CIFAR family (§4.2)."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.layers import (
    BatchNorm,
    Conv,
    Dtype,
    LayerFactory,
    Shortcut,
    global_average_pool,
    he_normal,
    max_pool,
    parameter_dtype,
    scale_input,
)


class ImageNetStem(nn.Module):
    """conv1 and the pool before conv2_x (Table 1): 7×7 with stride 2, then a 3×3 maximum with stride 2; a quarter of the side.

    Attributes:
        channels, conv, norm, activation: As in ResNet; `channels` are the filters.
        pool_padding: Of the maximum, before and after: (1, 1), or (0, 1) where windows start at the first pixel and the last
            one may hang over, which is what Caffe computes without padding.
    """

    channels: int
    conv: LayerFactory
    norm: LayerFactory
    activation: Callable[[Array], Array]
    pool_padding: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h2 w2 c"]:
        x = self.conv(self.channels, (7, 7), 2, name="conv")(images)
        x = self.activation(self.norm(name="norm")(x))
        return max_pool(x, size=3, stride=2, padding=self.pool_padding)


class CifarStem(nn.Module):
    """The first layer of §4.2: 3×3 with stride 1; the side stays."""

    channels: int
    conv: LayerFactory
    norm: LayerFactory
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w c"]:
        x = self.conv(self.channels, (3, 3), name="conv")(images)
        return self.activation(self.norm(name="norm")(x))


class Stage(nn.Module):
    """Blocks on maps of one size (conv2_x … conv5_x): the first has the stage's stride, the others stride 1.

    Attributes:
        depth: Number of blocks.
        stride: Of the first block.
        block: Makes a block: `block(stride=…, name=…)`.
    """

    depth: int
    stride: int
    block: Callable[..., Callable[[Array], Array]]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        for index in range(self.depth):
            x = self.block(stride=self.stride if index == 0 else 1, name=f"block{index + 1}")(x)
        return x


class ResNet(nn.Module):
    """A residual net: stem, stages, global average pool, fully connected layer (Table 1).

    `apply(variables, images, train=False)` takes normalised images float[N, H, W, 3] and gives logits [N, num_classes], in
    float32 (float64 where `dtype` is). With `train=True` batch normalisation uses the batch and updates the collection
    `batch_stats`, which must then be mutable. Submodules are named by what they are: stem, stage1, block1, conv1, norm1, head.
    With `with_features=True` it gives the logits, and by name the outputs of stem and stages and the pooled vector: `features`.

    Attributes:
        stage_depths: Blocks in each stage.
        block: Makes a block from filters, stride, conv, norm, activation and shortcut.
        shortcut: The path around a block.
        stem: Makes the layers before the first stage.
        width: Channels of the stem and filters of the first stage; every later stage has twice the filters on half the side.
        num_classes: Length of the logits.
        dtype: Of the computation; parameters, statistics and logits are float32 (float64 where it is float64).
        norm: Makes a normalisation layer; see BatchNorm.
        conv: Makes a convolution; see Conv.
        activation: The non-linearity.
        group_size, axis_name: Of batch normalisation: images per group of statistics, and the mapped axis of the global batch.
        input_scale: Factors of the channels of the images, for nets that were trained on images divided by a deviation.
    """

    stage_depths: tuple[int, ...]
    block: Callable[..., nn.Module]
    shortcut: Shortcut
    stem: Callable[..., nn.Module]
    width: int
    num_classes: int
    dtype: Dtype = jnp.float32
    norm: Callable[..., nn.Module] = BatchNorm
    conv: Callable[..., nn.Module] = Conv
    activation: Callable[[Array], Array] = nn.relu
    group_size: int | None = None
    axis_name: str | None = None
    input_scale: tuple[float, ...] | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool = False, *, with_features: bool = False
    ) -> Float[Array, "n classes"] | tuple[Float[Array, "n classes"], dict[str, Array]]:
        layers = {
            "conv": partial(self.conv, dtype=self.dtype),
            "norm": partial(
                self.norm,
                use_running_average=not train,
                group_size=self.group_size,
                axis_name=self.axis_name,
                dtype=self.dtype,
            ),
            "activation": self.activation,
        }
        features = {}
        x = self.stem(self.width, **layers, name="stem")(scale_input(images.astype(self.dtype), self.input_scale))
        features["stem"] = x
        for index, depth in enumerate(self.stage_depths):
            block = partial(self.block, filters=self.width * 2**index, shortcut=self.shortcut, **layers)
            x = Stage(depth, stride=1 if index == 0 else 2, block=block, name=f"stage{index + 1}")(x)
            features[f"stage{index + 1}"] = x
        features["pooled"] = global_average_pool(x)
        dtype = parameter_dtype(self.dtype)
        head = nn.Dense(self.num_classes, kernel_init=he_normal, dtype=dtype, param_dtype=dtype, name="head")
        logits = head(features["pooled"])
        return (logits, features) if with_features else logits
