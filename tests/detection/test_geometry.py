"""Boxes, suppression and regions are torchvision's (committed values, float64), and plain loops agree."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.detection.anchors import anchor_grid, make_cell, paper_cell
from resnet_jax.detection.boxes import clip, covered, decode_boxes, encode_boxes, iou, mirror
from resnet_jax.detection.nms import best, nms, vote
from resnet_jax.detection.roi import roi_align, roi_pool
from tests.detection.reference import GOLDEN, THRESHOLDS, greedy, overlap

WEIGHTS = (10.0, 10.0, 5.0, 5.0)

# Compiled, since one program takes less time to compile than each of its operations alone.
_compiled = jax.jit(nms, static_argnames="count")
_vote = jax.jit(vote)
_encode = jax.jit(encode_boxes, static_argnames="weights")
_decode = jax.jit(decode_boxes, static_argnames="weights")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as stored:
        return dict(stored)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_nms_is_torchvisions_at_every_threshold(golden: dict[str, np.ndarray], threshold: float) -> None:
    boxes, scores = golden["boxes"], golden["scores"]
    keep = _compiled(boxes, scores, np.ones(200, bool), threshold, count=200)
    assert np.flatnonzero(keep).tolist() == sorted(golden[f"nms_{threshold}"].tolist())
    labels = golden["labels"]
    by_class = _compiled(boxes, scores, np.ones(200, bool), threshold, count=200, classes=labels)
    assert np.flatnonzero(by_class).tolist() == golden[f"batched_nms_{threshold}"].tolist()


@settings(max_examples=16)
@given(
    seed=st.integers(0, 2**31),
    threshold=st.sampled_from(THRESHOLDS),
    count=st.sampled_from([5, 600]),
    coarse=st.booleans(),
)
def test_nms_is_the_greedy_loop(seed: int, threshold: float, count: int, coarse: bool) -> None:
    """Crowded boxes over two blocks, ties, NaN, invalid slots and classes."""
    random = np.random.RandomState(seed)
    total = 600
    corner = random.uniform(0, 60, (total, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0, 30, (total, 2))], 1)
    boxes = np.round(boxes / 4) * 4 if coarse else boxes
    scores = np.round(random.uniform(-3, 3, total), 1)
    scores[random.uniform(size=total) < 0.02] = np.nan
    valid, labels = random.uniform(size=total) < 0.7, random.randint(0, 2, total)
    keep = np.asarray(_compiled(boxes, scores, valid, threshold, count=count, classes=labels))
    assert (keep == greedy(boxes, scores, valid, threshold, count, labels)).all()
    boxes[~valid] = random.uniform(0, 60, ((~valid).sum(), 4))  # Garbage in invalid slots changes no bit.
    scores[~valid] = 1e9
    assert (np.asarray(_compiled(boxes, scores, valid, threshold, count=count, classes=labels)) == keep).all()


def test_boxes_at_the_threshold_exactly_both_stay() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    assert _compiled(boxes, np.array([1.0, 0.5]), np.ones(2, bool), 0.5, count=2).all()


def test_scores_that_are_nan_come_last_and_are_never_kept() -> None:
    scores = np.array([np.nan, 1.0, np.inf, -np.inf, 2.0])
    order, valid = jax.jit(best, static_argnums=2)(scores, np.array([True, True, True, True, False]), 5)
    assert order.tolist()[:2] == [2, 1]
    assert not valid[np.asarray(order) == 0].any()
    apart = np.arange(5)[:, None] * 20.0 + np.array([0.0, 0, 10, 10])
    keep = _compiled(apart, scores, np.ones(5, bool), 0.5, count=5)
    assert keep.tolist() == [False, True, True, True, True]


def _with_slopes(
    pooled: Callable[[jax.Array], jax.Array], golden: dict[str, np.ndarray]
) -> tuple[jax.Array, jax.Array]:
    """Returns pooled regions and the gradient to the map."""

    def both(x: jax.Array, upstream: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, pull = jax.vjp(pooled, x)
        return out, pull(upstream)[0]

    return jax.jit(both)(golden["map"], golden["upstream"])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [2, 0])
def test_roi_align_is_torchvisions_with_its_gradient(
    golden: dict[str, np.ndarray], aligned: bool, samples: int
) -> None:
    def pooled(x: jax.Array) -> jax.Array:
        boxes, valid = jnp.asarray(golden["regions"]), jnp.ones(12, bool)
        return roi_align(x, boxes, valid, stride=16, bins=4, samples=samples or None, aligned=aligned)

    out, slopes = _with_slopes(pooled, golden)
    np.testing.assert_allclose(out, golden[f"align_{aligned}_{samples}"], atol=1e-9)
    np.testing.assert_allclose(slopes, golden[f"align_{aligned}_{samples}_gradient"], atol=1e-9)


def test_roi_pool_is_torchvisions_with_its_gradient(golden: dict[str, np.ndarray]) -> None:
    def pooled(x: jax.Array) -> jax.Array:
        boxes, valid = jnp.asarray(golden["whole"]), jnp.ones(12, bool)
        return roi_pool(x, boxes, valid, stride=16, bins=4, inclusive=True)

    out, slopes = _with_slopes(pooled, golden)
    np.testing.assert_allclose(out, golden["pool"], atol=1e-12)
    np.testing.assert_allclose(slopes, golden["pool_gradient"], atol=1e-9)


@pytest.mark.parametrize("pool", [roi_align, roi_pool])
def test_regions_see_the_true_map_alone_and_invalid_ones_nothing(pool: Callable[..., jax.Array]) -> None:
    random = np.random.RandomState(0)
    x = random.normal(size=(6, 7, 2))
    corner = random.uniform(-20, 80, (70, 2))  # More than a chunk.
    boxes = np.concatenate([corner, corner + random.uniform(0, 90, (70, 2))], 1)
    valid = np.arange(70) % 3 > 0
    padded = np.pad(x, ((0, 3), (0, 4), (0, 0)), constant_values=99.0)
    compiled = jax.jit(partial(pool, stride=16, bins=3))
    alone = compiled(x, boxes, valid)
    inside = compiled(padded, boxes, valid, size=np.array([6, 7]))
    np.testing.assert_allclose(inside, alone, atol=1e-12)
    assert not np.asarray(alone)[~valid].any()
    assert np.asarray(alone)[valid].any()


def test_deltas_are_torchvisions_and_inverses(golden: dict[str, np.ndarray]) -> None:
    anchors, targets = golden["anchors"], golden["targets"]
    encoded = _encode(targets, anchors, weights=WEIGHTS)
    np.testing.assert_allclose(encoded, golden["encoded"], atol=1e-9)
    np.testing.assert_allclose(_decode(encoded, anchors, weights=WEIGHTS), targets, atol=1e-9)
    decoded = _decode(golden["far"], anchors, weights=WEIGHTS)
    np.testing.assert_allclose(decoded, golden["decoded"], rtol=1e-9, atol=1e-6)


@jax.jit
def _moved(deltas: jax.Array, anchor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns clipped boxes and the gradient of their sum."""
    boxes, pull = jax.vjp(lambda x: clip(decode_boxes(x, anchor, WEIGHTS), jnp.array([100, 100])), deltas)
    return boxes, pull(jnp.ones_like(boxes))[0]


@jax.jit
def _encoded(boxes: jax.Array, anchor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns deltas and the gradient of half the sum of their squares."""
    deltas, pull = jax.vjp(lambda x: encode_boxes(x, anchor, WEIGHTS), boxes)
    return deltas, pull(deltas)[0]


@pytest.mark.parametrize("value", [1e4, -1e4, 0.0])
def test_large_deltas_and_degenerate_boxes_give_finite_boxes_and_gradients(value: float) -> None:
    anchor = jnp.array([[5.0, 5, 5, 5], [0, 0, 16, 16]], jnp.float32)
    deltas = jnp.full((2, 4), value, jnp.float32)
    boxes, slopes = _moved(deltas, anchor)
    assert jnp.isfinite(boxes).all()
    assert jnp.isfinite(slopes).all()
    encoded, slopes = _encoded(jnp.zeros((2, 4), jnp.float32), anchor)
    assert jnp.isfinite(encoded).all()
    assert jnp.isfinite(slopes).all()


_overlaps = jax.jit(iou)
_slope = jax.jit(jax.grad(lambda x: iou(x, x).sum()))


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.integers(-9, 30)] * 4), min_size=5, max_size=5))
def test_overlaps_are_those_of_the_loop_symmetric_and_between_0_and_1(rows: list[tuple[int, ...]]) -> None:
    boxes = np.array(rows, np.float64)
    found = np.asarray(_overlaps(boxes, boxes))
    wanted = [[overlap(a, b) for b in boxes] for a in boxes]
    ordered = (boxes[:, 2:] >= boxes[:, :2]).all(1)
    np.testing.assert_allclose(found[ordered][:, ordered], np.array(wanted)[ordered][:, ordered], atol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.isfinite(_slope(boxes)).all()


def test_a_box_in_a_crowd_is_measured_by_its_own_area() -> None:
    share = covered(np.array([[0.0, 0, 10, 10], [0, 0, 0, 5]]), np.array([[0.0, 0, 5, 100]]))
    np.testing.assert_allclose(share, [[0.5], [0.0]])


def test_mirroring_twice_is_nothing_and_shows_the_same_pixels() -> None:
    boxes = np.array([[1.0, 2, 4, 6]])
    np.testing.assert_array_equal(mirror(mirror(boxes, 11), 11), boxes)
    image = np.zeros((8, 11))
    image[2:6, 1:4] = 1
    left, top, right, bottom = np.asarray(mirror(boxes, 11))[0].astype(int)
    assert image[:, ::-1][top:bottom, left:right].all()
    assert image.sum() == (right - left) * (bottom - top)


def test_the_papers_anchors_are_py_faster_rcnns() -> None:
    """Its generate_anchors() prints these corners, the last pixel included, around the pixel 7.5."""
    corners = [
        [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
        [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
        [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
    ]  # fmt: skip
    grid = anchor_grid(38, 63, stride=16, cell=paper_cell())
    assert grid.shape == (38 * 63 * 9, 4)
    np.testing.assert_array_equal(grid[:9], np.array(corners) + np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(grid[9:18] - grid[:9], np.full((9, 4), [16, 0, 16, 0]))
    np.testing.assert_array_equal(grid[63 * 9] - grid[0], [0, 16, 0, 16])


def test_cells_have_the_sizes_and_ratios_that_they_are_asked_for() -> None:
    cell = np.array(make_cell((32, 64), (0.5, 1, 2)))
    sides = cell[:, 2:] - cell[:, :2]
    np.testing.assert_allclose(sides.prod(1) ** 0.5, [32] * 3 + [64] * 3)
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], [0.5, 1, 2] * 2)


def test_voting_is_the_mean_around_a_box_weighted_by_score() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60], [0, 0, 10, 9]])
    voted = _vote(
        boxes[:1],
        np.array([1]),
        boxes,
        np.array([0.5, 0.25, 0.9, 0.9]),
        np.array([True, True, True, True]),
        np.array([1, 1, 1, 2]),
        0.5,
    )
    np.testing.assert_allclose(voted, [[0, 0, 10, (0.5 * 10 + 0.25 * 8) / 0.75]])
