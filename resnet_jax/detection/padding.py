"""Layers that treat the padding of an image as what lies outside of it: a padded image is the image alone."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from resnet_jax.models.resnet import LayerFactories

Sizes = Int[Array, "n 2"]
"""True height and width of each image, in pixels; beyond them is padding."""


def within(sizes: Sizes, shape: tuple[int, ...]) -> Bool[Array, "n h w"]:
    """Returns which pixels of images of this shape are no padding."""
    rows, columns = (jnp.arange(side) for side in shape)
    return (rows[None, :, None] < sizes[:, 0, None, None]) & (
        columns[None, None, :] < sizes[:, 1, None, None]
    )


def map_sizes(sizes: Sizes, image: tuple[int, ...], shape: tuple[int, ...]) -> Sizes:
    """Returns the true sizes on a map of this shape that was made of images of the shape `image`."""
    strides = jnp.array([side // of_map for side, of_map in zip(image, shape, strict=True)])
    return -(-sizes // strides)


def clear_padding(
    x: Float[Array, "n h w c"], *, sizes: Sizes, image: tuple[int, ...]
) -> Float[Array, "n h w c"]:
    """Returns a map with zeros outside of the images."""
    inside = within(map_sizes(sizes, image, x.shape[1:3]), x.shape[1:3])
    return jnp.where(inside[..., None], x, 0)


def without_padding(factories: LayerFactories, sizes: Sizes, image: tuple[int, ...]) -> LayerFactories:
    """Returns what makes a net's layers, for layers that see zeros where the images end.

    Convolutions of more than one pixel see zeros there as at the edge of a map, and activations leave zeros
    there, so that a maximum over positive values is that of the image alone.

    Args:
        factories: `conv`, `norm` and `activation`, see `ResNet.layer_factories`.
        sizes: True sizes of the images.
        image: Height and width of the padded images, multiples of the net's stride.
    """
    clear = partial(clear_padding, sizes=sizes, image=image)
    activation = factories["activation"]

    def conv(
        channels: int, size: tuple[int, int], *arguments: object, **options: object
    ) -> Callable[[Array], Array]:
        layer = factories["conv"](channels, size, *arguments, **options)
        return layer if max(size) == 1 else lambda x: layer(clear(x))

    return factories | {"conv": conv, "activation": lambda x: clear(activation(x))}
