"""Some of the classes of a data set, as a data set of its own."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, UInt8

from resnet_jax.data.sources import Indices, Source
from resnet_jax.training.config import ConfigError


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


def with_labels(source: Source, labels: Sequence[int]) -> Source:
    """Returns the examples of `source` that have these labels, which become 0, 1, … in this order; reads the split once.

    Raises:
        ConfigError: A label does not exist, or comes twice.
    """
    count = len(source.class_names)
    if len(set(labels)) < len(labels) or not all(isinstance(label, int) and 0 <= label < count for label in labels):
        raise ConfigError(f"config.data.labels is {tuple(labels)}; it must be different labels from 0 to {count - 1}")
    found = [source.read(range(start, min(start + 1024, len(source))))[1] for start in range(0, len(source), 1024)]
    return LabelSubset(source, np.flatnonzero(np.isin(np.concatenate(found), labels)), tuple(labels))
