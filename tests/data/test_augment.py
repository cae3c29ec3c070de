"""Augmentation is a pure function of (key, image), the same on any part of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.data.augment import normalise, pad_crop_mirror

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
        matches = [i for i, crop in enumerate(candidates(image - MEAN, pad, mirror)) if np.array_equal(crop, result)]
        assert matches
        chosen.add(matches[0])
    assert len(chosen) >= min(len(candidates(IMAGES[0] - MEAN, pad, mirror)), 8)


def test_an_example_does_not_depend_on_its_neighbours() -> None:
    augment = pad_crop_mirror(pad=2, mirror=True)
    whole = augment(KEYS, IMAGES, MEAN)
    np.testing.assert_array_equal(augment(KEYS[8:12], IMAGES[8:12], MEAN), whole[8:12])


@pytest.mark.usefixtures("x64")
def test_the_choice_is_the_same_in_float64() -> None:
    augment = pad_crop_mirror(pad=2, mirror=True)
    with_x64 = augment(KEYS, IMAGES, MEAN)
    jax.config.update("jax_enable_x64", False)
    np.testing.assert_array_equal(with_x64, augment(KEYS, IMAGES, MEAN))


def test_normalising_subtracts_the_mean_and_scales_nothing() -> None:
    np.testing.assert_array_equal(normalise(IMAGES, MEAN), IMAGES - MEAN)
    channel = np.float32([120, 110, 100])
    np.testing.assert_array_equal(normalise(IMAGES, channel), IMAGES - channel)
