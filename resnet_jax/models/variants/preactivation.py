"""Blocks that normalize and activate before they convolve, and add without activating (arXiv 1603.05027, Fig. 1b)."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from resnet_jax.models.blocks import strides_of
from resnet_jax.models.layers import LayerFactory, no_norm, unchanged
from resnet_jax.models.shortcuts import Shortcut


class PreactivationBlock(nn.Module):
    """Two 3×3 convolutions, each behind its normalization and activation: [N, H, W, C] → [N, ⌈H/stride⌉, ⌈W/stride⌉, filters].

    Attributes:
        filters, stride, conv, norm, activation, shortcut, residual: As in BasicBlock. Where dimensions rise the shortcut takes what
            the first convolution does (Appendix of the paper), and it has no normalization.
    """

    filters: int
    stride: int
    conv: LayerFactory
    norm: LayerFactory
    activation: Callable[[Array], Array]
    shortcut: Shortcut
    residual: Callable[[Array], Array] = unchanged
    expansion: ClassVar[int] = 1
    convolutions: ClassVar[int] = 2

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        active = self.activation(self.norm(name="norm1")(x))
        y = self.conv(self.filters, (3, 3), self.stride, name="conv1")(active)
        y = self.activation(self.norm(name="norm2")(y))
        y = self.conv(self.filters, (3, 3), name="conv2")(y)
        return self.residual(y) + around(self, x, active, channels=self.filters)


class PreactivationBottleneckBlock(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, each behind its normalization and activation: [N, H, W, C] → [N, …, 4 · filters].

    Attributes:
        filters, stride, conv, norm, activation, shortcut, residual, stride_on, widening, groups: As in BottleneckBlock; the
            shortcut as in PreactivationBlock.
    """

    filters: int
    stride: int
    conv: LayerFactory
    norm: LayerFactory
    activation: Callable[[Array], Array]
    shortcut: Shortcut
    residual: Callable[[Array], Array] = unchanged
    stride_on: str = "1x1"
    widening: float = 1.0
    groups: int = 1
    expansion: ClassVar[int] = 4
    convolutions: ClassVar[int] = 3

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        channels, inner = self.filters * self.expansion, int(self.filters * self.widening)
        first, second = strides_of(self.stride, self.stride_on)
        active = self.activation(self.norm(name="norm1")(x))
        y = self.conv(inner, (1, 1), first, name="conv1")(active)
        y = self.activation(self.norm(name="norm2")(y))
        y = self.conv(inner, (3, 3), second, groups=self.groups, name="conv2")(y)
        y = self.activation(self.norm(name="norm3")(y))
        y = self.conv(channels, (1, 1), name="conv3")(y)
        return self.residual(y) + around(self, x, active, channels=channels)


def around(
    block: Any, x: Float[Array, "n h w c"], active: Float[Array, "n h w c"], *, channels: int
) -> Array | float:
    """Returns the shortcut of a block: of x itself where dimensions stay, else of what its convolutions see."""
    same = x.shape[-1] == channels and block.stride == 1
    return block.shortcut(
        x if same else active, channels=channels, stride=block.stride, conv=block.conv, norm=no_norm
    )


def bare(stem: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Returns the stem without normalization and activation, which the first block brings."""

    def make(
        channels: int, *, conv: LayerFactory, norm: LayerFactory, activation: Any, name: str
    ) -> nn.Module:
        del norm, activation
        return stem(channels, conv=conv, norm=no_norm, activation=unchanged, name=name)

    return make


def normalize_and_activate(
    x: Float[Array, "n h w c"], *, norm: LayerFactory, activation: Callable[[Array], Array]
) -> Float[Array, "n h w c"]:
    """What follows the last block, which added without activating."""
    return activation(norm(name="end_norm")(x))
