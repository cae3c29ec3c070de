"""Residual and plain nets: the ImageNet family (Table 1) and the CIFAR family (§4.2)."""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from resnet_jax.models import layers
from resnet_jax.models.blocks import BlockFactory, NumberedBlock, VaryBlocks, alike
from resnet_jax.models.layers import Activation, LayerFactory, ModuleFactory
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.scanned import ScannedStage
from resnet_jax.models.shortcuts import Shortcut
from resnet_jax.models.stacking import stack_blocks

LayerFactories = dict[str, Any]
"""What makes the layers of a net: `conv` and `norm`, and the function `activation`."""


class Stage(nn.Module):
    """`depth` blocks on maps of one size (conv2_x … conv5_x); the first has the stage's stride."""

    depth: int
    stride: int
    block: NumberedBlock

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        for number in range(1, self.depth + 1):
            x = self.block(number, stride=self.stride if number == 1 else 1, name=f"block{number}")(x)
        return x


class ResNet(nn.Module):
    """A residual net: stem, stages, global average pool, fully connected layer (Table 1).

    `apply(variables, images, train=False)` takes normalized images [N, H, W, 3] and gives logits. With
    `train=True`, batch normalization updates the collection `batch_stats`, which must be mutable.

    Attributes:
        stage_depths: Number of blocks in each stage.
        block: Makes a block from filters, stride, conv, norm, activation and shortcut.
        shortcut: The path around a block.
        stem: Makes the layers before the first stage.
        width: Filters of the first stage; every later stage has twice as many on half the side.
        num_classes: Length of the logits.
        dtype: Dtype of the computation; parameters, statistics and logits are in `parameter_dtype(dtype)`.
        norm, conv, activation: The layers; see BatchNorm and Conv.
        stage: Makes a stage from depth, stride and block: Stage, or ScannedStage for stacked variables.
        vary: Makes blocks differ by their place in the net; see VaryBlocks.
        end: What comes between the last block and the head's average: `end(x, norm=…, activation=…)`.
        stem_width: Channels of the stem. Defaults to `width`.
        group_size, axis_name: See BatchNorm.
        input_scale: Factors of the channels, for nets trained on images divided by a deviation.
    """

    stage_depths: tuple[int, ...]
    block: BlockFactory
    shortcut: Shortcut
    stem: ModuleFactory
    width: int
    num_classes: int
    dtype: DTypeLike = jnp.float32
    norm: LayerFactory = BatchNorm
    conv: LayerFactory = layers.Conv
    activation: Activation = nn.relu
    stage: ModuleFactory = Stage
    vary: VaryBlocks = alike
    end: layers.End = layers.without_end
    stem_width: int | None = None
    group_size: int | None = None
    axis_name: str | None = None
    input_scale: tuple[float, ...] | None = None

    normalized: ClassVar[bool] = True  # There are normalization layers.
    scannable: ClassVar[bool] = True  # The blocks of a stage can be one loop.
    has_endpoints: ClassVar[bool] = True
    takes_any_size: ClassVar[bool] = True  # Variables fit images of any size.

    def __call__(self, images: Float[Array, "n h w 3"], train: bool = False) -> Float[Array, "n classes"]:
        return self.endpoints(images, train)["logits"]

    @nn.compact
    def endpoints(self, images: Float[Array, "n h w 3"], train: bool = False) -> dict[str, Array]:
        """Returns the outputs of stem and stages, the pooled vector and the logits, by name."""
        factories = self.layer_factories(train=train)
        x = self.make_stem(factories)(self.as_input(images))
        outputs = {"stem": x}
        for index in range(len(self.stage_depths)):
            x = outputs[f"stage{index + 1}"] = self.make_stage(index, factories, train=train)(x)
        x = self.end(x, norm=factories["norm"], activation=self.activation)
        outputs["pooled"] = layers.global_average_pool(x)
        dtype = layers.parameter_dtype(self.dtype)
        head = partial(nn.Dense, kernel_init=layers.he_normal, dtype=dtype, param_dtype=dtype, name="head")
        outputs["logits"] = head(self.num_classes)(outputs["pooled"])
        return outputs

    @nn.nowrap
    def as_input(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
        """Returns normalized images as the stem takes them."""
        return layers.scale_input(images.astype(self.dtype), self.input_scale)

    @nn.nowrap
    def layer_factories(self, *, train: bool) -> LayerFactories:
        """Returns what makes the layers: `conv`, `norm` and `activation`."""
        norm = partial(self.norm, group_size=self.group_size, axis_name=self.axis_name, dtype=self.dtype)
        norm = partial(norm, use_running_average=not train)
        return {"conv": partial(self.conv, dtype=self.dtype), "norm": norm, "activation": self.activation}

    @nn.nowrap
    def make_stem(self, factories: LayerFactories) -> nn.Module:
        """Returns the layers before the first stage, named "stem" in the module that calls this."""
        return self.stem(self.stem_width or self.width, **factories, name="stem")

    @nn.nowrap
    def make_stage(self, index: int, factories: LayerFactories, *, train: bool) -> nn.Module:
        """Returns a stage, counted from 0, named "stage1" and so on in the module that calls this."""
        block = partial(self.block, filters=self.width * 2**index, shortcut=self.shortcut, **factories)
        numbered = self.vary(block, net=self, before=sum(self.stage_depths[:index]), train=train)
        return self.stage(
            self.stage_depths[index], 1 if index == 0 else 2, numbered, name=f"stage{index + 1}"
        )

    @property
    def scanned(self) -> bool:
        """Whether the blocks of a stage are one loop, and their variables stacked."""
        return getattr(self.stage, "func", self.stage) is ScannedStage

    @nn.nowrap
    def init_with_output(self, *args: Any, **kwargs: Any) -> tuple[PyTree, PyTree]:
        """Returns logits and initial variables; a scanned net has those of the unrolled one, stacked."""
        if not self.scanned:
            return super().init_with_output(*args, **kwargs)
        logits, variables = self.clone(stage=Stage).init_with_output(*args, **kwargs)
        return logits, stack_blocks(variables)
