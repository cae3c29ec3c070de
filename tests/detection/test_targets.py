"""Anchors and regions learn what plain loops and torchvision's matcher say; samples are exact and random."""

import dataclasses
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.detection.anchors import anchor_grid, make_cell
from resnet_jax.detection.objects import Objects
from resnet_jax.detection.profiles import PROFILES
from resnet_jax.detection.proposals import ProposalLimits, propose
from resnet_jax.detection.targets import ONE, anchor_targets, roi_targets, sample
from tests.detection.reference import GOLDEN, overlap
from tests.detection.target_loops import anchor_roles, deltas_of, in_ignored, learned

CLASSES = 3
SIZE = (60, 76)
GRID = anchor_grid(8, 10, stride=8, cell=make_cell((12, 24, 48), (0.5, 1.0, 2.0)))
ALL = dataclasses.replace(PROFILES["scenes"], anchor_sample=4 * len(GRID), regions=48, region_share=1.0)
"""Trains every anchor, so that the choice does not hide who is a candidate."""

FEW = dataclasses.replace(ALL, anchor_sample=32, regions=16, region_share=0.25)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


_anchor_targets = jax.jit(anchor_targets, static_argnames="profile")
_roi_targets = jax.jit(roi_targets, static_argnames=("profile", "classes"))
_sample = jax.jit(sample, static_argnames=("count", "share"))


def some_objects(seed: int, *, ignored: float = 0.2) -> Objects:
    """Returns up to six objects in an image of SIZE, in slots with garbage between them."""
    random = np.random.RandomState(seed)
    corner = random.uniform(0, 1, (6, 2)) * [SIZE[1] - 10, SIZE[0] - 10]
    sides = random.uniform(8, 40, (6, 2))
    far = np.minimum(corner + sides, [SIZE[1], SIZE[0]])
    return Objects(
        np.concatenate([corner, far], 1),
        random.randint(0, CLASSES, 6),
        random.uniform(size=6) < 0.6,
        random.uniform(size=6) < ignored,
    )


def nothing() -> Objects:
    return some_objects(0)._replace(valid=np.zeros(6, bool))


def only(box: list[float], *, ignored: bool = False) -> Objects:
    """Returns one object, in six slots."""
    return nothing()._replace(
        box=np.tile(np.array([box]), (6, 1)), valid=np.arange(6) == 0, ignored=np.full(6, ignored)
    )


def with_garbage(objects: Objects) -> Objects:
    """Returns objects whose unused slots hold other values."""
    box = np.where(objects.valid[:, None], objects.box, [-3.0, 5.0, 70.0, 2.0])
    label = np.where(objects.valid, objects.label, 77)
    return Objects(box, label, objects.valid, np.where(objects.valid, objects.ignored, ~objects.ignored))


def some_proposals(seed: int, objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    near = objects.box[random.randint(0, 6, 30)] + random.uniform(-5, 5, (30, 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    return near, random.uniform(size=30) < 0.8


def test_anchors_match_as_torchvisions_matcher() -> None:
    with np.load(GOLDEN) as stored:
        grid, boxes, matched = stored["grid"] + 128, stored["objects"] + 128, stored["matched"]
    assert {-1, -2} < set(matched.tolist())
    objects = Objects(boxes, np.zeros(5, int), np.ones(5, bool), np.zeros(5, bool))
    profile = dataclasses.replace(ALL, only_inside=False, anchor_sample=2 * len(grid))
    size = np.array([1000, 1000])
    positive, negative, deltas = _anchor_targets(jax.random.key(0), grid, objects, size, profile)
    np.testing.assert_array_equal(positive, matched >= 0)
    np.testing.assert_array_equal(negative, matched == -1)
    for number in np.flatnonzero(matched >= 0):
        wanted = deltas_of(boxes[matched[number]], grid[number], ONE)
        np.testing.assert_allclose(deltas[number], wanted, atol=1e-9)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), only_inside=st.booleans())
def test_anchor_targets_are_those_of_the_loop(seed: int, only_inside: bool) -> None:
    objects, profile = some_objects(seed), dataclasses.replace(ALL, only_inside=only_inside)
    found = _anchor_targets(jax.random.key(seed), GRID, objects, np.array(SIZE), profile)
    positive, negative, which = anchor_roles(GRID, objects, SIZE, profile)
    np.testing.assert_array_equal(found[0], positive)
    np.testing.assert_array_equal(found[1], negative)
    for number in np.flatnonzero(positive):
        wanted = deltas_of(objects.box[which[number]], GRID[number], ONE)
        np.testing.assert_allclose(found[2][number], wanted, atol=1e-9)
    assert not np.asarray(found[2])[~positive].any()


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_region_targets_are_those_of_the_loop(seed: int) -> None:
    objects = some_objects(seed)
    proposals, valid = some_proposals(seed, objects)
    rois, used, labels, deltas = map(
        np.asarray, _roi_targets(jax.random.key(seed), proposals, valid, objects, ALL, classes=CLASSES)
    )
    candidates = [box for box, ok in zip(proposals, valid, strict=True) if ok]
    candidates += [objects.box[row] for row in learned(objects)]
    candidates = [box for box in candidates if not in_ignored(box, objects)]
    assert sorted(map(tuple, rois[used])) == sorted(map(tuple, candidates))
    assert (labels[~used] == CLASSES).all()
    assert not rois[~used].any()
    assert not deltas[labels == CLASSES].any()
    for number in np.flatnonzero(used):
        shared = {row: overlap(rois[number], objects.box[row]) for row in learned(objects)}
        row = max(shared, key=shared.__getitem__, default=-1)
        if shared.get(row, 0) >= 0.5:
            assert labels[number] == objects.label[row]
            wanted = deltas_of(objects.box[row], rois[number], ALL.head_weights)
            np.testing.assert_allclose(deltas[number], wanted, atol=1e-9)
        else:
            assert labels[number] == CLASSES


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), positives=st.floats(0, 1), negatives=st.floats(0, 1))
def test_samples_have_exactly_the_counts_that_there_are(
    seed: int, positives: float, negatives: float
) -> None:
    random = np.random.RandomState(seed)
    positive = random.uniform(size=50) < positives
    negative = ~positive & (random.uniform(size=50) < negatives)
    chosen, other = _sample(jax.random.key(seed), positive, negative, count=16, share=0.25)
    assert chosen.sum() == min(4, positive.sum())
    assert other.sum() == min(16 - chosen.sum(), negative.sum())
    assert not (np.asarray(chosen) & ~positive).any()
    assert not (np.asarray(other) & ~negative).any()


def test_every_candidate_is_sampled_as_often() -> None:
    positive, negative = np.arange(40) < 10, np.arange(40) >= 20
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.jit(jax.vmap(lambda key: sample(key, positive, negative, 16, 0.25)))
    chosen, other = draw(keys)
    often = np.asarray(chosen).mean(0)[positive], np.asarray(other).mean(0)[negative]
    np.testing.assert_allclose(often[0], 4 / 10, atol=0.04)  # Five standard deviations of 4000 draws.
    np.testing.assert_allclose(often[1], 12 / 20, atol=0.04)


def test_the_same_image_twice_in_a_batch_is_sampled_differently_and_order_only_permutes() -> None:
    objects = jax.tree.map(lambda *x: np.stack(x), *[some_objects(1)] * 3)
    keys = jax.random.split(jax.random.key(0), 3)
    find = jax.jit(jax.vmap(partial(anchor_targets, size=np.array(SIZE), profile=FEW), in_axes=(0, None, 0)))
    batch = find(keys, GRID, objects)
    assert (np.asarray(batch[1][0]) != np.asarray(batch[1][1])).any()
    turned = find(keys[::-1], GRID, objects)
    for one, other in zip(batch, turned, strict=True):
        np.testing.assert_array_equal(one, other[::-1])


def test_an_image_without_objects_has_no_positives_and_as_many_negatives_as_asked() -> None:
    positive, negative, deltas = _anchor_targets(jax.random.key(0), GRID, nothing(), np.array(SIZE), FEW)
    assert not positive.any()
    assert negative.sum() == FEW.anchor_sample
    assert not deltas.any()
    proposals, valid = some_proposals(0, nothing())
    rois, used, labels, deltas = _roi_targets(
        jax.random.key(0), proposals, valid, nothing(), FEW, classes=CLASSES
    )
    assert used.sum() == FEW.regions
    assert (labels == CLASSES).all()
    assert not deltas.any()
    assert jnp.isfinite(rois).all()


def test_no_object_and_no_background_leaves_no_region() -> None:
    proposals, _ = some_proposals(0, nothing())
    rois, used, labels, deltas = _roi_targets(
        jax.random.key(0), proposals, np.zeros(30, bool), nothing(), FEW, classes=CLASSES
    )
    assert not used.any()
    assert not rois.any()
    assert not deltas.any()
    assert (labels == CLASSES).all()


@pytest.mark.parametrize("box", [[200.0, 200, 230, 230], [3.0, 3, 3, 9]])
def test_an_object_that_no_anchor_overlaps_makes_none_positive(box: list[float]) -> None:
    positive, negative, _ = _anchor_targets(jax.random.key(0), GRID, only(box), np.array(SIZE), ALL)
    assert not positive.any()
    assert negative.any()


def test_crowds_and_difficult_objects_are_in_no_loss() -> None:
    objects = only([0.0, 0, 40, 60], ignored=True)
    positive, negative, _ = _anchor_targets(jax.random.key(0), GRID, objects, np.array(SIZE), ALL)
    share = np.array([in_ignored(anchor, objects) for anchor in GRID])
    assert share.any()
    assert not positive.any()
    assert negative.any()
    assert not (np.asarray(negative) & share).any()
    inside, apart = [5.0, 5, 30, 30], [50.0, 5, 70, 30]
    proposals = np.array([inside, apart] * 15)
    rois, used, labels, _ = _roi_targets(
        jax.random.key(0), proposals, np.arange(30) < 2, objects, FEW, classes=CLASSES
    )
    np.testing.assert_array_equal(np.asarray(rois)[np.asarray(used)], [apart])
    assert (labels == CLASSES).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_garbage_in_unused_slots_changes_no_bit(seed: int) -> None:
    objects, key = some_objects(seed), jax.random.key(seed)
    proposals, valid = some_proposals(seed, objects)
    wild = np.where(valid[:, None], proposals, [9.0, 1e30, -1e30, 4.0])
    pairs = zip(
        (
            *_anchor_targets(key, GRID, objects, np.array(SIZE), FEW),
            *_roi_targets(key, proposals, valid, objects, FEW, classes=CLASSES),
        ),
        (
            *_anchor_targets(key, GRID, with_garbage(objects), np.array(SIZE), FEW),
            *_roi_targets(key, wild, valid, with_garbage(objects), FEW, classes=CLASSES),
        ),
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("only_inside", [True, False])
def test_no_anchor_in_the_padding_is_trained(only_inside: bool) -> None:
    profile = dataclasses.replace(ALL, only_inside=only_inside)
    positive, negative, _ = _anchor_targets(
        jax.random.key(0), GRID, some_objects(3), np.array([30, 40]), profile
    )
    trained = GRID[np.asarray(positive | negative)]
    assert len(trained)
    centers = (trained[:, :2] + trained[:, 2:]) / 2
    assert (centers <= [40, 30]).all()
    if only_inside:
        assert (trained >= 0).all()
        assert (trained[:, 2:] <= [40, 30]).all()


LIMITS, EVERY = ProposalLimits(200, 20), np.ones(len(GRID), bool)
_proposed = jax.jit(
    lambda logits, deltas, present=EVERY: propose(
        logits,
        deltas,
        jnp.array(SIZE),
        jnp.ones(2),
        anchors=jnp.asarray(GRID),
        profile=ALL,
        limits=LIMITS,
        present=present,
    )
)
_slopes = jax.jit(jax.grad(lambda *x: _proposed(*x)[0].sum(), argnums=(0, 1)))


def test_proposals_are_constants_and_never_come_from_nan_or_infinite_logits() -> None:
    random = np.random.RandomState(0)
    logits, deltas = random.normal(size=len(GRID)), random.normal(size=(len(GRID), 4))
    assert np.asarray(_proposed(logits, deltas)[1]).any()
    assert not any(np.asarray(slope).any() for slope in _slopes(logits, deltas))
    boxes, valid = map(np.asarray, _proposed(np.full(len(GRID), np.nan), deltas))
    assert not valid.any()
    assert not boxes.any()
    present = np.arange(len(GRID)) % 3 > 0
    apart = _proposed(logits, deltas, present), _proposed(np.where(present, logits, np.nan), deltas)
    np.testing.assert_array_equal(apart[0][0], apart[1][0])
    wrong = logits.copy()
    wrong[::2], wrong[1::8] = np.nan, np.inf
    boxes, valid = map(np.asarray, _proposed(wrong, deltas))
    usual, also = map(np.asarray, _proposed(np.where(np.isfinite(wrong), wrong, -1e9), deltas))
    assert np.isfinite(boxes).all()
    assert valid.any()
    np.testing.assert_array_equal(boxes[valid], usual[also])


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_proposals_of_overflowing_deltas_are_finite_and_in_the_image(value: float) -> None:
    boxes, valid = map(np.asarray, _proposed(np.zeros(len(GRID)), np.full((len(GRID), 4), value)))
    assert np.isfinite(boxes).all()
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= SIZE[::-1]).all()
    assert (boxes[valid][:, 2:] > boxes[valid][:, :2]).all()
