"""Augmentation on the device: pure functions of (key, image), from uint8 to normalized float32."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

Augment = Callable[[jax.Array, UInt8[Array, "n h w 3"], Float[Array, "..."]], Float[Array, "n h w 3"]]
"""(keys [n], images, mean) → normalized images."""

_COLOR_STREAM = 7  # Of an example's key; the other draws take it by splitting.


def normalize(images: UInt8[Array, "*n h w 3"], mean: Float[Array, "..."]) -> Float[Array, "*n h w 3"]:
    """Returns the images minus the mean, [H, W, 3] or [3], in units of pixels; nothing is scaled (§3.4)."""
    return images.astype(jnp.float32) - mean


def pad_crop_mirror(*, pad: int, mirror: bool) -> Augment:
    """Returns the augmentation of §4.2: subtract the mean, mirror at random, pad, take a random crop.

    The crop has the size of the image.

    Args:
        pad: Zeros on every side, in pixels, so that the image moves by at most this number; 4 for CIFAR.
        mirror: Mirror every other image left to right, by chance.
    """

    def augment_one(
        key: jax.Array, image: UInt8[Array, "h w 3"], mean: Float[Array, "..."]
    ) -> Float[Array, "h w 3"]:
        offset_key, mirror_key = jax.random.split(key)
        mirrored = jax.random.bernoulli(mirror_key, jnp.float32(0.5)) if mirror else jnp.bool_(False)
        if mirror:
            # Bytes are mirrored, and a mean of pixels with them: a quarter of what the normalized image would
            # move.
            image = jnp.where(mirrored, image[:, ::-1], image)
            mean = jnp.where(mirrored, mean[:, ::-1], mean) if mean.ndim == 3 else mean
        normalized = normalize(image, mean)
        if not pad:
            return normalized
        offset = jax.random.randint(offset_key, (2,), 0, 2 * pad + 1, jnp.int32)
        column = jnp.where(mirrored, 2 * pad - offset[1], offset[1])
        return lax.dynamic_slice(
            jnp.pad(normalized, [(pad, pad), (pad, pad), (0, 0)]),
            (offset[0], column, jnp.int32(0)),
            image.shape,
        )

    return jax.vmap(augment_one, in_axes=(0, 0, None))


def vary_color(
    augment: Augment,
    eigenvalues: Float[np.ndarray, "3"],
    eigenvectors: Float[np.ndarray, "3 3"],
    *,
    deviation: float,
) -> Augment:
    """Returns an augmentation followed by the "standard color augmentation" (§3.4; AlexNet, §4.1).

    To every pixel of an image the same color is added, 255 Σ aᵢ λᵢ pᵢ, with aᵢ drawn from N(0, deviation)
    once per image.

    Args:
        augment: Comes first.
        eigenvalues: λ of the covariance of the training set's RGB values, scaled to [0, 1].
        eigenvectors: p, in columns.
        deviation: 0.1 in the paper.
    """
    scaled = jnp.float32(255) * jnp.asarray(eigenvectors, jnp.float32) * jnp.asarray(eigenvalues, jnp.float32)

    def shift(key: jax.Array) -> Float[Array, "3"]:
        return scaled @ (
            jnp.float32(deviation)
            * jax.random.normal(jax.random.fold_in(key, _COLOR_STREAM), (3,), jnp.float32)
        )

    def varied(
        keys: jax.Array, images: UInt8[Array, "n h w 3"], mean: Float[Array, "..."]
    ) -> Float[Array, "n h w 3"]:
        return augment(keys, images, mean) + jax.vmap(shift)(keys)[:, None, None, :]

    return varied
