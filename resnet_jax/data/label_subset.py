"""Some of the classes of a data set, as a data set of its own."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from resnet_jax.data.crops import CenterCrop, Look
from resnet_jax.data.data_error import DataError
from resnet_jax.data.scale import Pixels
from resnet_jax.data.source import Draws, Indices, Labels, Mask, PixelBatch, Source


@dataclasses.dataclass(frozen=True)
class LabelSubset:
    """Some examples of a split, whose labels become 0, 1, … in the order of `kept`.

    Attributes:
        source: The split.
        numbers: Numbers of the examples in the split.
        kept: The label in the split of each new label.
    """

    source: Source
    numbers: Int[np.ndarray, " n"]
    kept: tuple[int, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.source.image_shape

    @property
    def class_names(self) -> Sequence[str]:
        return [self.source.class_names[label] for label in self.kept]

    @property
    def view(self) -> CenterCrop | None:
        return self.source.view

    @property
    def labels(self) -> Labels:
        return self._relabel(self.source.labels[self.numbers])

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, indices: Indices, draws: Draws | None = None) -> tuple[PixelBatch, Labels, Mask]:
        images, old, mask = self.source.read(self.numbers[np.asarray(indices)], draws)
        return images, np.where(mask, self._relabel(old), np.int32(0)), mask

    def look(self, index: int, look: Look) -> tuple[list[Pixels], int] | None:
        found = self.source.look(int(self.numbers[index]), look)
        return found and (found[0], self.kept.index(found[1]))

    def describe(self, index: int) -> str:
        return self.source.describe(int(self.numbers[index]))

    def _relabel(self, old: Labels) -> Labels:
        new = np.full(len(self.source.class_names), -1, np.int32)
        new[list(self.kept)] = np.arange(len(self.kept))
        return new[old]


def with_labels(source: Source, labels: Sequence[int]) -> LabelSubset:
    """Returns the examples of `source` that have these labels, which become 0, 1, … in this order.

    Raises:
        DataError: A label does not exist, comes twice, or no example has one of them.
    """
    count = len(source.class_names)
    if len(set(labels)) < len(labels) or not all(
        type(label) is int and 0 <= label < count for label in labels
    ):
        raise DataError(
            f"config.data.labels is {tuple(labels)}; it must be different labels from 0 to {count - 1}"
        )
    numbers = np.flatnonzero(np.isin(source.labels, labels))
    if not len(numbers):
        raise DataError(f"config.data.labels is {tuple(labels)}, and no example of the split has one of them")
    return LabelSubset(source, numbers, tuple(labels))
