"""The losses are PyTorch's (committed values) over constant numbers; unused slots change nothing."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.detection.detection_losses import head_loss, rpn_loss, smooth_l1
from resnet_jax.detection.profiles import PROFILES
from tests.detection.reference import GOLDEN

PROFILE = PROFILES["paper"]
CLASSES = 3


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as stored:
        return dict(stored)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


_head = jax.jit(jax.value_and_grad(
    lambda scores, deltas, *rest: sum(head_loss(scores, deltas, *rest, PROFILE).values()), argnums=(0, 1)
))  # fmt: skip
_rpn = jax.jit(lambda *x: rpn_loss(*x, PROFILE))
_rpn_slopes = jax.jit(jax.grad(lambda *x: sum(rpn_loss(*x, PROFILE).values()), argnums=(0, 1)))


@pytest.mark.parametrize("beta", [1.0, 1 / 9])
def test_smooth_l1_is_pytorchs(golden: dict[str, np.ndarray], beta: float) -> None:
    np.testing.assert_allclose(smooth_l1(golden["off"], beta), golden[f"smooth_{beta:.3f}"], atol=1e-12)


def test_smooth_l1_without_a_smooth_part_is_the_distance_and_has_slopes() -> None:
    x = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(smooth_l1(x, 0.0), [2, 0, 3])
    for beta in (0.0, 1.0):
        assert jnp.isfinite(jax.grad(lambda x, beta=beta: smooth_l1(x, beta).sum())(x)).all()


def test_the_loss_of_anchors_is_pytorchs_sum_over_a_constant(golden: dict[str, np.ndarray]) -> None:
    logits, positive = golden["logits"], golden["wanted"] == 1
    deltas = np.random.RandomState(0).normal(size=(50, 4))
    deltas[:, 0] = golden["off"]
    targets = deltas.copy()
    targets[:, 0] = 0
    terms = _rpn(logits, deltas, positive, ~positive, targets)
    assert terms["rpn_object"] == pytest.approx(golden["cross"].sum() / 256)
    assert terms["rpn_box"] == pytest.approx(golden["smooth_0.111"][positive].sum() / 256)
    half = np.arange(50) % 2 == 0
    parts = [_rpn(logits, deltas, positive & part, ~positive & part, targets) for part in (half, ~half)]
    for name, term in terms.items():
        assert parts[0][name] + parts[1][name] == pytest.approx(float(term))


def test_anchors_that_are_not_sampled_change_neither_loss_nor_slopes() -> None:
    random = np.random.RandomState(0)
    logits, deltas, targets = random.normal(size=50), random.normal(size=(50, 4)), random.normal(size=(50, 4))
    positive, negative = np.arange(50) < 5, (np.arange(50) > 10) & (np.arange(50) < 30)
    used = positive | negative
    usual = _rpn(logits, deltas, positive, negative, targets)
    wild = np.where(used, logits, np.nan), np.where(positive[:, None], deltas, np.nan)
    garbage = _rpn(*wild, positive, negative, targets)
    assert all(usual[name] == garbage[name] for name in usual)
    of_logits, of_deltas = map(np.asarray, _rpn_slopes(*wild, positive, negative, targets))
    assert (of_logits[used] != 0).all()
    assert not of_logits[~used].any()
    assert not of_deltas[~positive].any()


def test_without_positives_the_box_loss_is_zero_and_the_slopes_are_finite() -> None:
    none, targets = np.zeros(50, bool), np.zeros((50, 4))
    deltas = np.random.RandomState(0).normal(size=(50, 4))
    terms = _rpn(np.zeros(50), deltas, none, none, targets)
    assert terms["rpn_box"] == terms["rpn_object"] == 0
    assert all(np.isfinite(slope).all() for slope in _rpn_slopes(np.zeros(50), deltas, none, none, targets))


def regions() -> tuple[np.ndarray, ...]:
    """Returns scores, deltas, labels, which regions there are, and targets."""
    random = np.random.RandomState(0)
    scores, deltas = random.normal(size=(8, CLASSES + 1)), random.normal(size=(8, CLASSES, 4))
    label = np.array([0, 1, 2, 3, 3, 3, 1, 3])
    return scores, deltas, label, np.arange(8) < 6, 3 * random.normal(size=(8, 4))


def test_the_loss_of_regions_is_that_of_a_loop_over_a_constant() -> None:
    scores, deltas, label, valid, targets = regions()
    wanted = 0.0
    for number in range(8):
        if valid[number]:
            shifted = np.exp(scores[number])
            wanted -= np.log(shifted[label[number]] / shifted.sum())
            if label[number] < CLASSES:
                off = np.abs(deltas[number, label[number]] - targets[number])
                wanted += np.where(off < 1, 0.5 * off**2, off - 0.5).sum()
    assert _head(*regions())[0] == pytest.approx(wanted / 128)


def test_a_region_trains_the_four_deltas_of_its_class_and_no_others() -> None:
    *_, label, valid, _ = regions()
    slopes = np.asarray(_head(*regions())[1][1])
    wanted = np.zeros((8, CLASSES), bool)
    objects = valid & (label < CLASSES)
    wanted[objects, label[objects]] = True
    np.testing.assert_array_equal((slopes != 0).all(-1), wanted)
    np.testing.assert_array_equal((slopes != 0).any(-1), wanted)


def test_regions_that_there_are_not_change_neither_loss_nor_slopes() -> None:
    scores, deltas, label, valid, targets = regions()
    wild = np.where(valid[:, None], scores, np.nan), np.where(valid[:, None, None], deltas, np.nan)
    usual, garbage = _head(*regions()), _head(*wild, label, valid, targets)
    assert usual[0] == garbage[0]
    for one, other in zip(usual[1], garbage[1], strict=True):
        np.testing.assert_array_equal(one, other)
        assert not np.asarray(other)[~valid].any()
    empty = _head(scores, deltas, label, np.zeros(8, bool), targets)
    assert empty[0] == 0
    assert not any(np.asarray(slope).any() for slope in empty[1])
