"""Augmentation is a pure function of (key, image), the same on any part of the batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.data.augment import normalize, pad_crop_mirror, vary_color
from resnet_jax.data.statistics import IMAGENET_COLOR

IMAGES = np.random.RandomState(0).randint(0, 256, (32, 6, 5, 3), dtype=np.uint8)
MEAN = np.random.RandomState(1).uniform(0, 255, (6, 5, 3)).astype(np.float32)
KEYS = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(32))


def candidates(image: np.ndarray, pad: int, mirror: bool) -> list[np.ndarray]:
    padded = np.pad(image, [(pad, pad), (pad, pad), (0, 0)])
    height, width = image.shape[:2]
    crops = [padded[y : y + height, x : x + width] for y in range(2 * pad + 1) for x in range(2 * pad + 1)]
    return crops + ([crop[:, ::-1] for crop in crops] if mirror else [])


@pytest.mark.parametrize(("pad", "mirror"), [(0, False), (1, False), (2, True), (0, True)])
def test_every_result_is_a_crop_of_the_padded_image_or_its_mirror(pad: int, mirror: bool) -> None:
    results = np.asarray(pad_crop_mirror(pad=pad, mirror=mirror)(KEYS, IMAGES, MEAN))
    chosen = set()
    for image, result in zip(IMAGES, results, strict=True):
        matches = [
            i for i, crop in enumerate(candidates(image - MEAN, pad, mirror)) if np.array_equal(crop, result)
        ]
        assert matches
        chosen.add(matches[0])
    assert len(chosen) >= min(len(candidates(IMAGES[0] - MEAN, pad, mirror)), 8)


def test_an_example_does_not_depend_on_its_neighbors() -> None:
    augment = pad_crop_mirror(pad=2, mirror=True)
    whole = augment(KEYS, IMAGES, MEAN)
    np.testing.assert_array_equal(augment(KEYS[8:12], IMAGES[8:12], MEAN), whole[8:12])


@pytest.mark.usefixtures("x64")
def test_the_choice_is_the_same_in_float64() -> None:
    augment = pad_crop_mirror(pad=2, mirror=True)
    with_x64 = augment(KEYS, IMAGES, MEAN)
    jax.config.update("jax_enable_x64", False)
    np.testing.assert_array_equal(with_x64, augment(KEYS, IMAGES, MEAN))


def test_normalizing_subtracts_the_mean_and_scales_nothing() -> None:
    np.testing.assert_array_equal(normalize(IMAGES, MEAN), IMAGES - MEAN)
    channel = np.float32([120, 110, 100])
    np.testing.assert_array_equal(normalize(IMAGES, channel), IMAGES - channel)


def test_colors_vary_along_the_principal_components_as_numpy_computes_it() -> None:
    """The color of an image is moved by 255 Σ aᵢ λᵢ pᵢ, the same at every pixel.

    The rest of the augmentation is unchanged.
    """
    eigenvalues, deviation = IMAGENET_COLOR.eigenvalues, 0.1
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(5), jnp.arange(4000))
    images = np.zeros((4000, 2, 2, 3), np.uint8)
    plain = pad_crop_mirror(pad=0, mirror=True)
    varied = vary_color(plain, eigenvalues, IMAGENET_COLOR.eigenvectors, deviation=deviation)
    shifts = np.asarray(varied(keys, images, MEAN[0, 0])) - np.asarray(plain(keys, images, MEAN[0, 0]))
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1, :1], shifts.shape), atol=1e-3)
    coefficients = np.linalg.solve(255 * IMAGENET_COLOR.eigenvectors * eigenvalues, shifts[:, 0, 0].T)
    np.testing.assert_allclose(coefficients.mean(1), 0, atol=4 * deviation / np.sqrt(4000))
    np.testing.assert_allclose(
        np.cov(coefficients), deviation**2 * np.eye(3), atol=6 * deviation**2 / np.sqrt(4000)
    )
    assert len({tuple(shift) for shift in shifts[:, 0, 0]}) == 4000


def test_the_color_of_an_image_is_a_function_of_its_key() -> None:
    varied = vary_color(
        pad_crop_mirror(pad=0, mirror=True), *dataclasses.astuple(IMAGENET_COLOR), deviation=0.1
    )
    whole = jax.jit(varied)(KEYS, IMAGES, MEAN)
    np.testing.assert_allclose(varied(KEYS[8:12], IMAGES[8:12], MEAN), whole[8:12], atol=1e-4)
    draws = [jax.random.normal(jax.random.fold_in(key, 7), (3,), jnp.float32) for key in KEYS[8:12]]
    plain = pad_crop_mirror(pad=0, mirror=True)(KEYS[8:12], IMAGES[8:12], MEAN)
    color = IMAGENET_COLOR
    expected = [
        255
        * sum(
            0.1 * float(a) * value * p
            for a, value, p in zip(d, color.eigenvalues, color.eigenvectors.T, strict=True)
        )
        for d in draws
    ]
    np.testing.assert_allclose(
        whole[8:12] - plain, np.broadcast_to(np.array(expected)[:, None, None], plain.shape), atol=1e-3
    )
