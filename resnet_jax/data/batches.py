"""A batch is a function of (seed, step): the order of examples, this process's part of it, and reading ahead."""

import dataclasses
import functools
from collections.abc import Iterator

import grain
import numpy as np
from grain.experimental import index_shuffle

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
        examples = [self.example_at(step * self.batch_size + int(position)) for position in positions]
        images, labels = self.source.read(examples)
        mask = np.ones(len(positions), bool)
        return {"image": images, "label": labels, "index": positions.astype(np.int32), "mask": mask}

    def example_at(self, position: int) -> int:
        """Returns the number of the example at a position of the endless sequence of examples."""
        epoch, offset = divmod(position, len(self.source))
        # Seeds of neighbouring runs and epochs must not meet: (seed 0, epoch 1) is not (seed 1, epoch 0).
        return index_shuffle(offset, max_index=len(self.source) - 1, seed=_epoch_seed(self.seed, epoch), rounds=4)


@functools.lru_cache(maxsize=16)
def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


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
        images, labels = self.source.read(np.where(mask, examples, 0).tolist())
        return {"image": images, "label": labels, "index": positions.astype(np.int32), "mask": mask}


def read_ahead(batches: TrainBatches, start: int, stop: int, *, workers: int, buffer: int) -> Iterator[HostBatch]:
    """Yields `batches[start]` to `batches[stop - 1]`, read by `workers` threads up to `buffer` batches ahead."""
    steps = grain.MapDataset.range(start, stop).map(batches.__getitem__)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=buffer)))
