"""The two residual blocks of Fig. 5. Each reads: activation(F(x) + shortcut(x))."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from resnet_jax.models.layers import Activation, LayerFactory, Residual, unchanged
from resnet_jax.models.shortcuts import Shortcut

# Makes a block: `block(filters=…, stride=…, conv=…, norm=…, activation=…, shortcut=…, name=…)`.
BlockFactory = Callable[..., nn.Module]
# Makes a block of a stage: `block(number, stride=…, name=…)`. The first has number 1; in a loop it is an
# array.
NumberedBlock = Callable[..., nn.Module]
# Makes the blocks of a stage from what they have in common: `vary(block, net=…, before=…, train=…)`. It is
# called inside the ResNet `net`, so that it can draw random numbers; `before` is the number of blocks before
# the stage.
VaryBlocks = Callable[..., NumberedBlock]


def alike(block: BlockFactory, **_: object) -> NumberedBlock:
    """Makes every block the same, wherever it is."""
    return lambda number, **options: block(**options)  # noqa: ARG005


class Block(nn.Module):
    """What a block is made from.

    Attributes:
        filters: Number of filters, which the stage doubles from the one before.
        stride: Stride of the block, of its first convolution unless it says otherwise.
        conv, norm: Make the layers: `conv(channels, size, stride, name=…)`, `norm(name=…)`.
        activation: The non-linearity.
        shortcut: The path around F.
        residual: What happens to F(x) before the addition; see Residual.
    """

    filters: int
    stride: int
    conv: LayerFactory
    norm: LayerFactory
    activation: Activation
    shortcut: Shortcut
    residual: Residual = unchanged


class BasicBlock(Block):
    """Two 3×3 convolutions (Fig. 5, left): [N, H, W, C] → [N, ⌈H/stride⌉, ⌈W/stride⌉, filters]."""

    expansion: ClassVar[int] = 1
    convolutions: ClassVar[int] = 2

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        y = self.conv(self.filters, (3, 3), self.stride, name="conv1")(x)
        y = self.activation(self.norm(name="norm1")(y))
        y = self.conv(self.filters, (3, 3), name="conv2")(y)
        y = self.norm(name="norm2")(y)
        shortcut = self.shortcut(x, channels=self.filters, stride=self.stride, conv=self.conv, norm=self.norm)
        return self.activation(self.residual(y) + shortcut)


class BottleneckBlock(Block):
    """1×1, 3×3 and 1×1 convolutions (Fig. 5, right): [N, H, W, C] → [N, ⌈H/stride⌉, ⌈W/stride⌉, 4 · filters].

    Attributes:
        stride_on: The convolution that strides: "1x1", the first, as in the authors' models, or "3x3", known
            as v1.5.
        widening: Factor of the first two convolutions; the third has four times `filters` in any case.
        groups: Groups of the 3×3 convolution (arXiv 1611.05431).
    """

    stride_on: str = "1x1"
    widening: float = 1.0
    groups: int = 1
    expansion: ClassVar[int] = 4
    convolutions: ClassVar[int] = 3

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        channels, inner = self.filters * self.expansion, int(self.filters * self.widening)
        first, second = strides_of(self.stride, self.stride_on)
        y = self.conv(inner, (1, 1), first, name="conv1")(x)
        y = self.activation(self.norm(name="norm1")(y))
        y = self.conv(inner, (3, 3), second, groups=self.groups, name="conv2")(y)
        y = self.activation(self.norm(name="norm2")(y))
        y = self.conv(channels, (1, 1), name="conv3")(y)
        y = self.norm(name="norm3")(y)
        shortcut = self.shortcut(x, channels=channels, stride=self.stride, conv=self.conv, norm=self.norm)
        return self.activation(self.residual(y) + shortcut)


def strides_of(stride: int, stride_on: str) -> tuple[int, int]:
    """Returns the strides of the 1×1 and the 3×3 convolution of a bottleneck, where `stride_on` strides."""
    return {"1x1": (stride, 1), "3x3": (1, stride)}[stride_on]
