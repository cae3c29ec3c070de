"""Residual and plain nets as stem, stages and head: the ImageNet family (Table 1) and the CIFAR family (§4.2)."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.kernels.pooling import max_pool
from resnet_jax.models.layers import (
    Conv,
    Dtype,
    LayerFactory,
    Residual,
    global_average_pool,
    he_normal,
    parameter_dtype,
    scale_input,
    without_end,
)
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.rng_streams import Keys, block_keys, with_keys
from resnet_jax.models.shortcuts import Shortcut
from resnet_jax.models.stacking import STACKED, scan_blocks, stack_blocks


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
        block: Makes a block: `block(stride=…, depth=…, name=…)`, where `depth` is its place in the net; see Residual.
        places: `depth` of every block.
        scan: The blocks after the first are one loop over stacked variables; see `resnet_jax.models.stacking`.
        remat: Blocks of that loop that are recomputed together in the backward pass; 0 keeps all activations.
    """

    depth: int
    stride: int
    block: Callable[..., nn.Module]
    places: tuple[float, ...]
    scan: bool = False
    remat: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        keys = block_keys(self, self.depth)
        x = self._block(1, keys)(x)
        if self.scan and self.depth > 2:
            return self._scan(x, jax.tree.map(lambda all_keys: all_keys[1:], keys))
        for number in range(2, self.depth + 1):
            x = self._block(number, keys)(x)
        return x

    def _block(self, number: int, keys: Keys) -> nn.Module:
        depth = jnp.asarray(self.places[number - 1])
        block = self.block(stride=self.stride if number == 1 else 1, depth=depth, name=f"block{number}")
        return with_keys(block, jax.tree.map(lambda all_keys: all_keys[number - 1], keys))

    def _scan(self, x: Float[Array, "n h w c"], keys: Keys) -> Float[Array, "n h w c"]:
        variables = {
            name: collection[STACKED] for name, collection in self.variables.items() if STACKED in collection
        }
        mutable = [name for name in variables if name != "params" and self.is_mutable_collection(name)]

        def one_block(x: Array, of_block: tuple[dict[str, Any], Array, Keys]) -> tuple[Array, Any]:
            variables, depth, keys = of_block
            return self.block(stride=1, depth=depth, parent=None).apply(
                variables, x, mutable=mutable, rngs=keys
            )

        of_blocks = variables, jnp.asarray(self.places[1:]), keys
        x, updated = scan_blocks(one_block, x, of_blocks, remat=self.remat)
        for name in mutable:
            self.put_variable(name, STACKED, updated[name])
        return x


class ResNet(nn.Module):
    """A residual net: stem, stages, global average pool, fully connected layer (Table 1).

    `apply(variables, images, train=False)` takes normalized images float[N, H, W, 3] and gives logits [N, num_classes], in
    float32 (float64 where `dtype` is). With `train=True` batch normalization uses the batch and updates the collection
    `batch_stats`, which must then be mutable. Submodules are named by what they are: stem, stage1, block1, conv1, norm1, head.
    With `with_features=True` it gives the logits, and by name the outputs of stem and stages and the pooled vector: `features`.
    What draws random numbers in training needs `rngs`; see `resnet_jax.models.rng_streams`.

    Attributes:
        stage_depths: Blocks in each stage.
        block: Makes a block from filters, stride, conv, norm, activation and shortcut, and from `residual` where there is one.
        shortcut: The path around a block.
        stem: Makes the layers before the first stage.
        width: Channels of the stem and filters of the first stage; every later stage has twice the filters on half the side.
        num_classes: Length of the logits.
        dtype: Of the computation; parameters, statistics and logits are float32 (float64 where it is float64).
        norm: Makes a normalization layer; see BatchNorm.
        conv: Makes a convolution; see Conv.
        activation: The non-linearity.
        residual: What becomes of F(x) in every block before it is added; None leaves it alone.
        end: What comes between the last block and the head's average: `end(x, norm=…, activation=…)`.
        stem_width: Channels of the stem where they are not `width`.
        group_size, axis_name: Of batch normalization: images per group of statistics, and the mapped axis of the global batch.
        input_scale: Factors of the channels of the images, for nets that were trained on images divided by a deviation.
        scan: The identical blocks of a stage are one loop, so that the size of the program does not grow with depth; variables are
            stacked (`resnet_jax.models.stacking`), and `init` gives those of the same net without it.
        remat: With `scan`, blocks whose activations are computed again, together, in the backward pass; 0 keeps them.
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
    residual: Residual | None = None
    end: Callable[..., Array] = without_end
    stem_width: int | None = None
    group_size: int | None = None
    axis_name: str | None = None
    input_scale: tuple[float, ...] | None = None
    scan: bool = False
    remat: int = 0

    normalized: ClassVar[bool] = True
    """Whether there are normalization layers, and attributes `norm`, `group_size` and `axis_name` for them."""
    scannable: ClassVar[bool] = True
    """Whether there are identical blocks, which can be one loop."""
    has_endpoints: ClassVar[bool] = True
    """Whether the outputs of its stages can be had; see `resnet_jax.features`."""
    takes_any_size: ClassVar[bool] = True
    """Whether variables fit images of any size."""

    @nn.nowrap
    def init_with_output(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Returns logits and initial variables: with `scan` the stacked ones of the net without, so that a seed gives one net."""
        if not self.scan:
            return super().init_with_output(*args, **kwargs)
        logits, variables = self.clone(scan=False, remat=0).init_with_output(*args, **kwargs)
        return logits, stack_blocks(variables)

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
        x = self.stem(self.stem_width or self.width, **layers, name="stem")(
            scale_input(images.astype(self.dtype), self.input_scale)
        )
        features["stem"] = x
        total, before = sum(self.stage_depths), 0
        for index, depth in enumerate(self.stage_depths):
            block = partial(self.block, filters=self.width * 2**index, shortcut=self.shortcut, **layers)
            places = tuple(number / total for number in range(before + 1, before + depth + 1))
            stride = 1 if index == 0 else 2
            x = Stage(
                depth,
                stride,
                self._placed(block, train),
                places,
                self.scan,
                self.remat,
                name=f"stage{index + 1}",
            )(x)
            features[f"stage{index + 1}"] = x
            before += depth
        features["pooled"] = global_average_pool(self.end(x, norm=layers["norm"], activation=self.activation))
        dtype = parameter_dtype(self.dtype)
        head = nn.Dense(self.num_classes, kernel_init=he_normal, dtype=dtype, param_dtype=dtype, name="head")
        logits = head(features["pooled"])
        return (logits, features) if with_features else logits

    @nn.nowrap
    def _placed(self, block: Callable[..., nn.Module], train: bool) -> Callable[..., nn.Module]:
        """Returns `block` taking its `depth` as well, which it hands to `residual`."""
        if self.residual is None:
            return lambda *, depth, **options: block(**options)  # noqa: ARG005
        residual = partial(self.residual, train=train, axis_name=self.axis_name)
        return lambda *, depth, **options: block(residual=partial(residual, depth=depth), **options)
