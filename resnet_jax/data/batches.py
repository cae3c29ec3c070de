"""A batch is a function of (seed, step): the order of examples, a process's part of it, and reading ahead."""

import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar, runtime_checkable

import grain
import numpy as np
from absl import flags
from jaxtyping import Float

from resnet_jax.data.crops import DRAWS
from resnet_jax.data.range_reads import IN_FLIGHT
from resnet_jax.data.source import Source, read_decodable

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)

HostBatch = dict[str, np.ndarray]
"""A process's part of a batch: image uint8[b, H, W, 3], label int32[b], index int32[b], mask bool[b]."""


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """Endless global batches: every epoch visits every example once, in a new order, and drops none.

    An epoch need not end where a batch ends: it continues with the next epoch. `batches[step]` needs no batch
    before it.

    Attributes:
        source: The training split.
        batch_size: Size of the global batch.
        seed: Seed of the order.
        share: This process's positions of the global batch, in the order that its devices take them.
    """

    source: Source
    batch_size: int
    seed: int
    share: slice | np.ndarray

    def __getitem__(self, step: int) -> HostBatch:
        positions = np.arange(self.batch_size)[self.share]
        examples = self.examples_at(step * self.batch_size + positions)
        # Sources of one image size take no draws, and need not wait for them.
        given = None if self.source.view is None else draws(self.seed, step, self.batch_size)[self.share]
        images, labels = read_decodable(self.source, examples, given)
        return {
            "image": images,
            "label": labels,
            "index": positions.astype(np.int32),
            "mask": np.ones(len(positions), bool),
        }

    @property
    def size(self) -> int:
        return len(np.arange(self.batch_size)[self.share])

    def expect(self, step: int) -> None:
        self.source.expect(self.examples_at(step * self.batch_size + np.arange(self.batch_size)[self.share]))

    def examples_at(self, positions: np.ndarray) -> np.ndarray:
        """Returns the numbers of the examples at positions of the endless sequence of examples."""
        epochs, offsets = np.divmod(positions, len(self.source))
        return np.array(
            [_order(self.seed, int(e), len(self.source))[o] for e, o in zip(epochs, offsets, strict=True)]
        )


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    # NumPy keeps RandomState's stream: upgrades do not change the order.
    return np.random.RandomState([seed, epoch]).permutation(count)


def draws(seed: int, step: int, batch_size: int) -> Float[np.ndarray, "b d"]:
    """Returns uniform numbers in [0, 1) for every example of a global batch.

    They are a pure function of (seed, step, position). A position's numbers do not depend on the batch size.
    They are made of Philox's raw stream, which NumPy keeps as it is.
    """
    stream = np.random.Philox(key=np.array([seed, step], np.uint64)).random_raw(batch_size * DRAWS)
    return (stream >> np.uint64(11)).reshape(batch_size, DRAWS) * 2.0**-53


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
    """Every example of a split once, in order; the last batch is padded to full size, and the padding masked.

    Attributes:
        source: The split.
        batch_size: Size of the global batch.
        share: This process's positions of the global batch; every process sees the same number of batches.
        workers: Threads that read ahead while the batches are iterated over.
        buffer: Batches read ahead.
    """

    source: Source
    batch_size: int
    share: slice | np.ndarray
    workers: int = 1
    buffer: int = 2

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, number: int) -> HostBatch:
        if number >= len(self):
            raise IndexError(number)
        positions = np.arange(self.batch_size)[self.share]
        examples = number * self.batch_size + positions
        mask = examples < len(self.source)
        images = np.zeros((len(positions), *self.source.image_shape), np.uint8)
        labels = np.zeros(len(positions), np.int32)
        count = np.count_nonzero(mask)
        images[:count], labels[:count], mask[:count] = self.source.read(examples[mask])
        return {"image": images, "label": labels, "index": positions.astype(np.int32), "mask": mask}

    @property
    def size(self) -> int:
        return len(np.arange(self.batch_size)[self.share])

    def expect(self, number: int) -> None:
        examples = number * self.batch_size + np.arange(self.batch_size)[self.share]
        self.source.expect(examples[examples < len(self.source)])

    def __iter__(self) -> Iterator[HostBatch]:
        return read_ahead(self, 0, len(self), workers=self.workers, buffer=self.buffer)


def reading_threads(workers: int | None) -> int:
    """Returns the number of threads for `workers`; None is one per core that this process may use."""
    return workers or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


class Numbered(Protocol[Item_co]):
    """Items by number, such as batches: a pure function of the number, safe in threads."""

    def __getitem__(self, number: int, /) -> Item_co: ...


@dataclasses.dataclass(frozen=True)
class _Expecting(Generic[Item]):
    """Items by number; before one is made, the source hears which examples one of the next is made of.

    A process makes every `processes`th item, and `threads` of these at a time, so the next that nobody has
    begun is `processes * threads` further on.
    """

    items: Numbered[Item]
    start: int
    stop: int
    processes: int
    threads: int

    def __call__(self, number: int) -> Item:
        if isinstance(self.items, Foreseeable):
            ahead = max(1, IN_FLIGHT // max(1, self.items.size))
            begun = number >= self.start + self.processes  # The first one tells of all that are near.
            for place in range(ahead if begun else 1, ahead + 1):
                later = number + self.processes * (self.threads - 1 + place)
                if later < self.stop:
                    self.items.expect(later)
        return self.items[number]


@runtime_checkable
class Foreseeable(Protocol):
    """Items whose source can hear early what they are made of."""

    @property
    def size(self) -> int:
        """Examples of an item."""

    def expect(self, number: int) -> None:
        """Tells the source of the examples of an item."""


def read_ahead(
    batches: Numbered[Item | None], start: int, stop: int, *, workers: int, buffer: int, processes: int = 0
) -> Iterator[Item]:
    """Yields `batches[start]` to `batches[stop - 1]`, except those that are None, and reads ahead.

    Args:
        batches: By number, in any order.
        start: The first number.
        stop: One beyond the last.
        workers: Threads that read, in each process.
        buffer: Batches that wait at most.
        processes: Processes that read; 0 is this one. The decoders release the interpreter, so that threads
            keep up.
    """
    readers = max(1, processes)
    steps = grain.MapDataset.range(start, stop).map(_Expecting(batches, start, stop, readers, workers))
    if not processes:
        return iter(
            steps.to_iter_dataset(
                grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(workers, buffer))
            )
        )
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's processes ask for a flag, and nobody here defines one.
    return iter(
        steps.to_iter_dataset(
            grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers)
        ).mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=processes, per_worker_buffer_size=max(1, buffer // processes)
            )
        )
    )
