"""Layers before the first stage: those of Table 1, of §4.2, and one between them."""

import flax.linen as nn
from jaxtyping import Array, Float

from resnet_jax.models.kernels.pooling import max_pool
from resnet_jax.models.layers import Activation, LayerFactory


class Stem(nn.Module):
    """What the layers before the first stage are made from; their output has this many channels."""

    channels: int
    conv: LayerFactory
    norm: LayerFactory
    activation: Activation


class ImageNetStem(Stem):
    """conv1 and the pool before conv2_x (Table 1): 7×7 and a 3×3 maximum, both with stride 2.

    Attributes:
        pool_padding: Padding of the maximum, before and after; (0, 1) is what Caffe computes without padding.
    """

    pool_padding: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h2 w2 c"]:
        x = self.conv(self.channels, (7, 7), 2, name="conv")(images)
        x = self.activation(self.norm(name="norm")(x))
        return max_pool(x, size=3, stride=2, padding=self.pool_padding)


class CifarStem(Stem):
    """The first layer of §4.2: 3×3 with stride 1."""

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w c"]:
        x = self.conv(self.channels, (3, 3), name="conv")(images)
        return self.activation(self.norm(name="norm")(x))


class StridedStem(Stem):
    """A 3×3 convolution with stride 2, and no maximum: for images between CIFAR's size and ImageNet's."""

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h2 w2 c"]:
        x = self.conv(self.channels, (3, 3), 2, name="conv")(images)
        return self.activation(self.norm(name="norm")(x))
