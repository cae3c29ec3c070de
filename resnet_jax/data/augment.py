"""Augmentation on the device: pure functions of (key, image), from uint8 to normalised float32."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8


def normalise(images: UInt8[Array, "n h w 3"], mean: Float[Array, "..."]) -> Float[Array, "n h w 3"]:
    """Returns the images less the mean, per pixel [H, W, 3] or per channel [3], in units of pixels; nothing is scaled (§3.4)."""
    return images.astype(jnp.float32) - mean


def pad_crop_mirror(
    *, pad: int, mirror: bool
) -> Callable[[jax.Array, UInt8[Array, "n h w 3"], Float[Array, "..."]], Float[Array, "n h w 3"]]:
    """Returns the augmentation of §4.2: subtract the mean, pad, take a random crop of the old size of the image or its mirror.

    Args:
        pad: Zeros on every side, in pixels, so that the image moves by at most as many; 4 for CIFAR.
        mirror: Mirror every other image left to right, by chance.
    """

    def augment_one(key: jax.Array, image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
        offset_key, mirror_key = jax.random.split(key)
        if pad:
            offset = jax.random.randint(offset_key, (2,), 0, 2 * pad + 1, jnp.int32)
            padded = jnp.pad(image, [(pad, pad), (pad, pad), (0, 0)])
            image = lax.dynamic_slice(padded, (offset[0], offset[1], jnp.int32(0)), image.shape)
        if mirror:
            image = jnp.where(jax.random.bernoulli(mirror_key, jnp.float32(0.5)), image[:, ::-1], image)
        return image

    def augment(keys: jax.Array, images: UInt8[Array, "n h w 3"], mean: Float[Array, "..."]) -> Float[Array, "n h w 3"]:
        return jax.vmap(augment_one)(keys, normalise(images, mean))

    return augment
