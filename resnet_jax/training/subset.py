"""Some of the classes of a data set, as a data set of its own."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, UInt8

from resnet_jax.data.encoded import DecodedSource, Examples, Indices, Payload
from resnet_jax.data.folder import FolderExamples
from resnet_jax.data.sources import Source
from resnet_jax.training.config_fields import ConfigError


@dataclasses.dataclass(frozen=True)
class LabelSubset:
    """The examples of a split that have certain labels, in the split's order.

    Attributes:
        source: The split.
        numbers: Of the examples, in the split.
        labels: The old label of each new one.
    """

    source: Source
    numbers: np.ndarray
    labels: tuple[int, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.source.image_shape

    @property
    def class_names(self) -> Sequence[str]:
        return [self.source.class_names[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, indices: Indices) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, " n"]]:
        images, old = self.source.read(self.numbers[np.asarray(indices)])
        new = np.full(len(self.source.class_names), -1, np.int32)
        new[list(self.labels)] = np.arange(len(self.labels))
        return images, new[old]


@dataclasses.dataclass(frozen=True)
class ExamplesSubset:
    """The same for encoded images, below the view that they are seen through: so that training still draws its crops.

    Attributes:
        examples: The split.
        numbers: Of the examples, in the split.
        labels: The old label of each new one.
    """

    examples: Examples
    numbers: np.ndarray
    labels: tuple[int, ...]

    @property
    def class_names(self) -> Sequence[str]:
        return [self.examples.class_names[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> tuple[Payload, int]:
        payload, old = self.examples.read(int(self.numbers[index]))
        return payload, self.labels.index(old)

    def describe(self, index: int) -> str:
        return self.examples.describe(int(self.numbers[index]))


def with_labels(source: Source, labels: Sequence[int]) -> Source:
    """Returns the examples of `source` that have these labels, which become 0, 1, … in this order; reads the split once.

    Raises:
        ConfigError: A label does not exist, comes twice, or no example has one of them.
    """
    count = len(source.class_names)
    if len(set(labels)) < len(labels) or not all(
        type(label) is int and 0 <= label < count for label in labels
    ):
        raise ConfigError(
            f"config.data.labels is {tuple(labels)}; it must be different labels from 0 to {count - 1}"
        )
    numbers = np.flatnonzero(np.isin(_labels(source), labels))
    if not len(numbers):
        raise ConfigError(
            f"config.data.labels is {tuple(labels)}, and no example of the split has one of them"
        )
    if isinstance(source, DecodedSource):
        return dataclasses.replace(source, examples=ExamplesSubset(source.examples, numbers, tuple(labels)))
    return LabelSubset(source, numbers, tuple(labels))


def _labels(source: Source) -> np.ndarray:
    """Returns the label of every example; nothing is decoded for it."""
    if isinstance(source, DecodedSource):
        examples = source.examples
        if isinstance(examples, FolderExamples):  # Knows them without opening a file.
            return np.asarray(examples.labels)
        return np.asarray([examples.read(index)[1] for index in range(len(examples))])
    starts = range(0, len(source), 1024)
    return np.concatenate([source.read(range(start, min(start + 1024, len(source))))[1] for start in starts])
