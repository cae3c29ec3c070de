"""Pooled regions are those of plain loops: over the border, empty, a pixel wide, and on either long axis."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.detection.roi import roi_align, roi_pool
from tests.detection import region_loops

STRIDE, BINS, REGIONS = 8, 3, 6

_align = jax.jit(roi_align, static_argnames=("stride", "bins", "samples", "aligned"))
_pool = jax.jit(roi_pool, static_argnames=("stride", "bins", "inclusive"))


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def regions(random: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """Returns boxes on quarters of a pixel of the map; the first is empty, the second all of the image."""
    corner = random.uniform(-4, 1, (REGIONS, 2)) + random.uniform(0, 1, (REGIONS, 2)) * [width, height]
    sides = random.uniform(0, 1, (REGIONS, 2)) * [width, height]
    boxes = np.round(4 * np.concatenate([corner, corner + sides], 1)) / 4 * STRIDE
    boxes[0, 2:] = boxes[0, :2]
    boxes[1] = [0, 0, width * STRIDE, height * STRIDE]
    return boxes


@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(5, 9), (9, 5)]),
    samples=st.sampled_from([2, None]),
    aligned=st.booleans(),
)
def test_roi_align_is_the_loop(seed: int, shape: tuple[int, int], samples: int | None, aligned: bool) -> None:
    random = np.random.RandomState(seed)
    x, boxes = random.normal(size=(*shape, 2)), regions(random, *shape)
    options = {"stride": STRIDE, "bins": BINS, "samples": samples, "aligned": aligned}
    found = _align(x, boxes, np.ones(REGIONS, bool), **options)
    for region, box in zip(found, boxes, strict=True):
        np.testing.assert_allclose(region, region_loops.align(x, box, **options), atol=1e-12)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**31), shape=st.sampled_from([(5, 9), (9, 5)]))
def test_roi_pool_is_the_loop(seed: int, shape: tuple[int, int]) -> None:
    random = np.random.RandomState(seed)
    x, boxes = random.normal(size=(*shape, 2)), regions(random, *shape)
    found = _pool(x, boxes, np.ones(REGIONS, bool), stride=STRIDE, bins=BINS, inclusive=True)
    continuous = _pool(
        x, boxes + np.array([0, 0, 1, 1]), np.ones(REGIONS, bool), stride=STRIDE, bins=BINS, inclusive=False
    )
    np.testing.assert_array_equal(found, continuous)
    for region, box in zip(found, boxes, strict=True):
        np.testing.assert_array_equal(region, region_loops.pool(x, box, stride=STRIDE, bins=BINS))


@pytest.mark.parametrize("bins", [3, 7, 14])
def test_bins_of_whole_length_have_no_pixel_more(bins: int) -> None:
    """As a map of row numbers shows; 7 pixels are 3 bins whose last ends at 7, not at 7.0000005."""
    rows = np.arange(63.0)[:, None, None]
    boxes = np.array([[0, 0, 0, end] for end in range(63)], float)
    found = _pool(rows, boxes, np.ones(63, bool), stride=1, bins=bins, inclusive=True)[:, :, 0, 0]
    wanted = [[-(-(row + 1) * (end + 1) // bins) - 1 for row in range(bins)] for end in range(63)]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("pool", [_align, _pool])
def test_regions_that_there_are_not_change_neither_the_others_nor_slopes(pool: object) -> None:
    random = np.random.RandomState(0)
    x, boxes = random.normal(size=(5, 9, 2)), regions(random, 5, 9)
    valid = np.arange(REGIONS) % 2 > 0
    wild = np.where(valid[:, None], boxes, [9e5, -3.0, 1e-9, 7e6])

    def pooled(x: jax.Array, boxes: np.ndarray) -> jax.Array:
        return pool(x, boxes, valid, stride=STRIDE, bins=BINS)  # type: ignore[operator]

    @jax.jit
    def both(boxes: np.ndarray) -> tuple[jax.Array, jax.Array]:
        out, pull = jax.vjp(lambda x: pooled(x, boxes), x)
        return out, pull(jax.numpy.ones_like(out))[0]

    for one, other in zip(both(boxes), both(wild), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.asarray(both(boxes)[0])[~valid].any()
