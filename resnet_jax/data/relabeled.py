"""A split whose labels are replaced by those of a network, which knows the classes in another order."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from resnet_jax.data.crops import CenterCrop, Look
from resnet_jax.data.scale import Pixels
from resnet_jax.data.source import Draws, Indices, Labels, Mask, PixelBatch, Source


@dataclasses.dataclass(frozen=True)
class RelabeledSource:
    """A split with the labels of a network.

    Attributes:
        source: The split.
        label_of: The network's label of each label of the split.
        class_names: Names of the network's classes, by label; some may have no example.
    """

    source: Source
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
        return self._relabel(self.source.labels)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Indices, draws: Draws | None = None) -> tuple[PixelBatch, Labels, Mask]:
        images, labels, mask = self.source.read(indices, draws)
        return images, np.where(mask, self._relabel(labels), np.int32(0)), mask

    def look(self, index: int, look: Look) -> tuple[list[Pixels], int] | None:
        found = self.source.look(index, look)
        return found and (found[0], self.label_of[found[1]])

    def describe(self, index: int) -> str:
        return self.source.describe(index)

    def _relabel(self, labels: Labels) -> Labels:
        return np.asarray(self.label_of, np.int32)[labels]
