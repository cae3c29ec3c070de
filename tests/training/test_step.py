"""Counts are masked and exact; augmentation keys come from (seed, step, index)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax.data.augment import normalize
from resnet_jax.data.batches import EvaluationBatches
from resnet_jax.data.source import ArraySource
from resnet_jax.parallel import AXIS_NAME, create_mapping
from resnet_jax.training.config import resolve
from resnet_jax.training.factories import build_augmentation, build_optimizer
from resnet_jax.training.step import evaluate, make_evaluation_step, make_train_step, masked_sums
from resnet_jax.training.task import build_experiment
from tests.training.tiny import get_config

MASKED_SUMS = jax.jit(masked_sums)


@given(st.integers(0, 2**31), st.sampled_from([(1, 2), (7, 5), (40, 6), (33, 9)]))
def test_masked_sums_count_what_numpy_counts(seed: int, shape: tuple[int, int]) -> None:
    count, classes = shape
    rng = np.random.RandomState(seed)
    logits = rng.randn(count, classes).astype(np.float32)
    labels, mask = rng.randint(0, classes, count), rng.rand(count) < 0.7
    sums = MASKED_SUMS(logits, labels, mask)
    order = np.argsort(-logits, axis=-1)
    assert int(sums["examples"]) == mask.sum()
    assert int(sums["top1"]) == (order[mask, 0] == labels[mask]).sum()
    assert ("top5" in sums) == (classes > 5)
    if classes > 5:
        assert int(sums["top5"]) == (order[mask, :5] == labels[mask, None]).sum()
    log_sum = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    expected = (log_sum - logits[np.arange(count), labels])[mask].sum()
    np.testing.assert_allclose(sums["loss"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_equal_and_undefined_logits_do_not_score(value: float) -> None:
    sums = masked_sums(jnp.full((4, 10), value), jnp.zeros(4, int), jnp.ones(4, bool))
    assert int(sums["top1"]) == int(sums["top5"]) == 0


@pytest.mark.parametrize("mapping", ["pmap", "shard_map"])
def test_evaluation_of_a_ragged_split_equals_all_at_once(mapping: str) -> None:
    ours = build_experiment(get_config(**{"run.devices": 4, "run.mapping": mapping}))
    rng = np.random.RandomState(0)
    source = ArraySource(
        rng.randint(0, 256, (37, 8, 8, 3), np.uint8), rng.randint(0, 7, 37).astype(np.int32), list("abcdefg")
    )
    state = ours.initial_state()
    laid = create_mapping(mapping, jax.devices()[:4])
    step = laid.map(make_evaluation_step(ours.model, normalize, axis_name=AXIS_NAME), donate=False)
    results = evaluate(step, laid.replicate(state), EvaluationBatches(source, 16, slice(0, 16)), laid)

    logits = jax.jit(ours.model.apply)(state.variables, normalize(source.images, state.image_mean))
    expected = MASKED_SUMS(logits, source.labels, np.ones(37, bool))
    assert results["examples"] == 37
    assert results["top1"] == pytest.approx(float(expected["top1"]) / 37)
    assert results["top5"] == pytest.approx(float(expected["top5"]) / 37)
    assert results["loss"] == pytest.approx(float(expected["loss"]) / 37, rel=1e-5)


def test_the_loss_falls_when_a_batch_is_repeated() -> None:
    ours = build_experiment(get_config(**{"run.devices": 2}))
    state = ours.mapping.replicate(ours.initial_state())
    batch = ours.mapping.shard(ours.train_batches[0])
    losses = []
    for _ in range(20):
        state, metrics = ours.train_step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert int(state.step) == 20


def test_steps_without_an_axis_are_those_of_one_device() -> None:
    """Under plain `jax.jit`, with the global batch on one device.

    Loss, state and sums are the mapped ones'.
    """
    config = resolve(get_config(**{"run.devices": 1}))
    mapped = build_experiment(config)
    schedule, optimizer = build_optimizer(config.optimizer)
    augment = build_augmentation(config.data)
    train_step = jax.jit(
        make_train_step(mapped.model, optimizer, augment, schedule=schedule, seed=config.seed)
    )
    evaluation_step = jax.jit(make_evaluation_step(mapped.model, normalize))
    batch, test_batch = mapped.train_batches[0], mapped.seeds.test_batches[0]
    state = mapped.initial_state()
    placed = mapped.mapping.replicate(state)
    expected_sums = mapped.mapping.map(mapped.seeds.evaluation_step, donate=False)(
        placed, mapped.mapping.shard(test_batch)
    )
    sums = evaluation_step(state, test_batch)
    assert {name: float(value) for name, value in sums.items()} == pytest.approx(
        {name: float(value) for name, value in expected_sums.items()}, rel=1e-6
    )
    state, metrics = train_step(state, batch)
    placed, expected = mapped.train_step(placed, mapped.mapping.shard(batch))
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-5)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(placed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
