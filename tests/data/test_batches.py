"""A batch is a function of (seed, step): whatever the process, the moment or the number of processes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax.data.batches import EvaluationBatches, TrainBatches, read_ahead
from resnet_jax.data.source import ArraySource


def numbered(count: int) -> ArraySource:
    """Returns a source whose labels are the numbers of its examples."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    return ArraySource(images, np.arange(count, dtype=np.int32), [str(n) for n in range(count)])


def share(batch_size: int, process: int, processes: int) -> slice:
    part = batch_size // processes
    return slice(process * part, (process + 1) * part)


@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    epochs=st.integers(1, 3),
)
def test_an_epoch_visits_every_example_once(count: int, batch_size: int, seed: int, epochs: int) -> None:
    batches = TrainBatches(numbered(count), batch_size, seed, slice(0, batch_size))
    steps = -(-count * epochs // batch_size)
    labels = np.concatenate([batches[step]["label"] for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(labels[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(processes=st.sampled_from([1, 2, 3, 4]), step=st.integers(0, 500_000))
def test_the_union_over_processes_is_the_batch_position_by_position(processes: int, step: int) -> None:
    whole = TrainBatches(numbered(101), 24, 3, slice(0, 24))[step]
    parts = [
        TrainBatches(numbered(101), 24, 3, share(24, process, processes))[step]
        for process in range(processes)
    ]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def epoch(seed: int, number: int) -> tuple[int, ...]:
        batches = TrainBatches(numbered(64), 64, seed, slice(0, 64))
        return tuple(batches[number]["label"].tolist())

    orders = [epoch(seed, number) for seed in range(4) for number in range(4)]
    assert len(set(orders)) == len(orders)
    assert all(sum(label == position for position, label in enumerate(order)) < 10 for order in orders)


def test_images_and_labels_stay_together() -> None:
    batch = TrainBatches(numbered(50), 20, 0, slice(5, 15))[7]
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
    np.testing.assert_array_equal(batch["index"], np.arange(5, 15))
    assert batch["image"].dtype == np.uint8
    assert batch["mask"].all()


@pytest.mark.parametrize("workers", [1, 3])
def test_reading_ahead_changes_nothing(workers: int) -> None:
    batches = TrainBatches(numbered(50), 20, 0, slice(0, 20))
    ahead = list(read_ahead(batches, 4, 30, workers=workers, buffer=3))
    assert len(ahead) == 26
    for step, batch in enumerate(ahead, start=4):
        np.testing.assert_array_equal(batch["label"], batches[step]["label"])


@given(
    count=st.integers(1, 50), batch_size=st.sampled_from([12, 24]), processes=st.sampled_from([1, 2, 3, 4])
)
def test_evaluation_counts_every_example_once(count: int, batch_size: int, processes: int) -> None:
    parts = [
        EvaluationBatches(numbered(count), batch_size, share(batch_size, p, processes))
        for p in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    seen: Counter[int] = Counter()
    for part in parts:
        for number in range(len(part)):
            batch = part[number]
            assert len(batch["label"]) == batch_size // processes
            seen.update(batch["label"][batch["mask"]].tolist())
    assert seen == Counter(range(count))


def test_iterating_over_evaluation_batches_ends() -> None:
    assert len(list(EvaluationBatches(numbered(25), 10, slice(0, 10)))) == 3


def test_the_order_is_that_of_earlier_versions() -> None:
    """A resumed run must find the order that it began with, also after an upgrade of this package or of
    NumPy."""
    batches = TrainBatches(numbered(256), 8, 0, slice(0, 8))
    assert batches.examples_at(np.array([0, 1, 2, 255, 256, 257, 10**9])).tolist() == [
        178,
        192,
        116,
        233,
        187,
        51,
        101,
    ]
