"""Blocks that normalize and activate before they convolve (arXiv 1603.05027, Fig. 1b)."""

import flax.linen as nn
from jaxtyping import Array, Float

from resnet_jax.models.blocks import BasicBlock, Block, BottleneckBlock, strides_of
from resnet_jax.models.layers import Activation, LayerFactory, ModuleFactory, no_norm, unchanged


class PreactivationBlock(BasicBlock):
    """A BasicBlock whose convolutions are each behind their normalization and activation.

    Where dimensions rise the shortcut takes what the first convolution does (Appendix of the paper), and it
    has no normalization.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        active = self.activation(self.norm(name="norm1")(x))
        y = self.conv(self.filters, (3, 3), self.stride, name="conv1")(active)
        y = self.activation(self.norm(name="norm2")(y))
        y = self.conv(self.filters, (3, 3), name="conv2")(y)
        return self.residual(y) + around(self, x, active, channels=self.filters)


class PreactivationBottleneckBlock(BottleneckBlock):
    """A BottleneckBlock in the order, and with the shortcut, of PreactivationBlock."""

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
    block: Block, x: Float[Array, "n h w c"], active: Float[Array, "n h w c"], *, channels: int
) -> Array | float:
    """Returns the shortcut of a block: of x where dimensions stay, else of what its convolutions see."""
    same = x.shape[-1] == channels and block.stride == 1
    return block.shortcut(
        x if same else active, channels=channels, stride=block.stride, conv=block.conv, norm=no_norm
    )


def bare(stem: ModuleFactory) -> ModuleFactory:
    """Returns the stem without normalization and activation, which the first block brings."""

    def make(channels: int, *, conv: LayerFactory, name: str, **_: object) -> nn.Module:
        return stem(channels, conv=conv, norm=no_norm, activation=unchanged, name=name)

    return make


def normalize_and_activate(
    x: Float[Array, "n h w c"], *, norm: LayerFactory, activation: Activation
) -> Float[Array, "n h w c"]:
    """Normalization and activation after the last block, whose sum is not activated."""
    return activation(norm(name="end_norm")(x))
