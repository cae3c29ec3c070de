"""A batch is a function of (seed, step): the order of examples, this process's part of it, and reading ahead."""

import dataclasses
import functools
from collections.abc import Iterator

import grain
import numpy as np

from resnet_jax.data.sources import Source

HostBatch = dict[str, np.ndarray]
"""A process's part: image uint8[b, H, W, 3], label int32[b], index int32[b] in the global batch, mask bool[b]."""


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """Global batches without end: every epoch visits every example once, in an order of its own, and nothing is dropped.

    An epoch need not end where a batch ends: the batch goes on with the next epoch. `batches[step]` needs no batch before it.

    Attributes:
        source: The training split.
        batch_size: Of the global batch.
        seed: Of the order.
        share: This process's positions of the global batch.
    """

    source: Source
    batch_size: int
    seed: int
    share: slice

    def __getitem__(self, step: int) -> HostBatch:
        positions = np.arange(self.batch_size)[self.share]
        images, labels = self.source.read(self.examples_at(step * self.batch_size + positions))
        mask = np.ones(len(positions), bool)
        return {"image": images, "label": labels, "index": positions.astype(np.int32), "mask": mask}

    def examples_at(self, positions: np.ndarray) -> np.ndarray:
        """Returns the numbers of the examples at positions of the endless sequence of examples."""
        epochs, offsets = np.divmod(positions, len(self.source))
        return np.array([_order(self.seed, int(e), len(self.source))[o] for e, o in zip(epochs, offsets, strict=True)])


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the order of an epoch. RandomState's stream is frozen by NumPy: a run resumed after an upgrade finds its order."""
    return np.random.RandomState([seed, epoch]).permutation(count)


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
    """Every example of a split once, in order; the last batch is padded to full size, and the padding masked.

    Attributes:
        source: The split.
        batch_size: Of the global batch.
        share: This process's positions of the global batch; every process sees the same number of batches.
    """

    source: Source
    batch_size: int
    share: slice

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, number: int) -> HostBatch:
        if number >= len(self):
            raise IndexError(number)
        positions = np.arange(self.batch_size)[self.share]
        examples = number * self.batch_size + positions
        mask = examples < len(self.source)
        images, labels = self.source.read(np.where(mask, examples, 0))
        return {"image": images, "label": labels, "index": positions.astype(np.int32), "mask": mask}


def read_ahead(batches: TrainBatches, start: int, stop: int, *, workers: int, buffer: int) -> Iterator[HostBatch]:
    """Yields `batches[start]` to `batches[stop - 1]`, read by `workers` threads up to `buffer` batches ahead."""
    steps = grain.MapDataset.range(start, stop).map(batches.__getitem__)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=buffer)))
