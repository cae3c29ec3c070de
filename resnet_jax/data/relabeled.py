"""Some examples of a split, or all, with other labels: those of a network, or of some classes alone."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from resnet_jax.data.crops import CenterCrop, Look
from resnet_jax.data.data_error import DataError
from resnet_jax.data.scale import Pixels
from resnet_jax.data.source import Draws, Indices, Labels, Mask, PixelBatch, Source


@dataclasses.dataclass(frozen=True)
class RelabeledSource:
    """Examples of a split, with other labels.

    Attributes:
        source: The split.
        numbers: Numbers of the examples in the split.
        label_of: The new label of each label of the split; -1 where no example has it.
        class_names: Names of the classes, by new label; some may have no example.
    """

    source: Source
    numbers: Int[np.ndarray, " n"]
    label_of: tuple[int, ...]
    class_names: Sequence[str]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.source.image_shape

    @property
    def fingerprint(self) -> str | None:
        return self.source.fingerprint

    @property
    def view(self) -> CenterCrop | None:
        return self.source.view

    @property
    def labels(self) -> Labels:
        return self._relabel(self.source.labels[self.numbers])

    def __len__(self) -> int:
        return len(self.numbers)

    def expect(self, indices: Indices) -> None:
        self.source.expect(self.numbers[np.asarray(indices)])

    def read(self, indices: Indices, draws: Draws | None = None) -> tuple[PixelBatch, Labels, Mask]:
        images, labels, mask = self.source.read(self.numbers[np.asarray(indices)], draws)
        return images, np.where(mask, self._relabel(labels), np.int32(0)), mask

    def look(self, index: int, look: Look) -> tuple[list[Pixels], int] | None:
        found = self.source.look(int(self.numbers[index]), look)
        return found and (found[0], self.label_of[found[1]])

    def describe(self, index: int) -> str:
        return self.source.describe(int(self.numbers[index]))

    def _relabel(self, labels: Labels) -> Labels:
        return np.asarray(self.label_of, np.int32)[labels]


def with_other_labels(source: Source, label_of: Sequence[int], class_names: Sequence[str]) -> RelabeledSource:
    """Returns all examples of a split; `label_of` is the new label of each label, named in `class_names`."""
    return RelabeledSource(source, np.arange(len(source)), tuple(label_of), class_names)


def only_examples(source: Source, numbers: Int[np.ndarray, " n"]) -> RelabeledSource:
    """Returns the examples with these numbers; their labels stay."""
    names = source.class_names
    return RelabeledSource(source, numbers, tuple(range(len(names))), names)


def with_labels(source: Source, labels: Sequence[int]) -> RelabeledSource:
    """Returns the examples of `source` that have these labels, which become 0, 1, … in this order.

    Raises:
        DataError: A label does not exist, comes twice, or no example has one of them.
    """
    names = source.class_names
    count = len(names)
    if len(set(labels)) < len(labels) or not all(
        type(label) is int and 0 <= label < count for label in labels
    ):
        raise DataError(
            f"config.data.labels is {tuple(labels)}; it must be different labels from 0 to {count - 1}"
        )
    numbers = np.flatnonzero(np.isin(source.labels, labels))
    if not len(numbers):
        raise DataError(f"config.data.labels is {tuple(labels)}, and no example of the split has one of them")
    new = {label: place for place, label in enumerate(labels)}
    return RelabeledSource(
        source,
        numbers,
        tuple(new.get(label, -1) for label in range(count)),
        [names[label] for label in labels],
    )
