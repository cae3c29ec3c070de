"""The `Source` protocol: random access to images and labels by number; and sources of one image size."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8

from resnet_jax.data.crops import CenterCrop, Look
from resnet_jax.data.data_error import DataError
from resnet_jax.data.scale import Pixels, look_at

Indices = Sequence[int] | Int[np.ndarray, " n"]
Draws = Float[np.ndarray, "n d"]
"""Uniform numbers in [0, 1), a row for each example."""

PixelBatch = UInt8[np.ndarray, "n h w 3"]
Labels = Int32[np.ndarray, " n"]
Mask = Bool[np.ndarray, " n"]


class Source(Protocol):
    """A split of a data set, numbered from 0."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and 3 channels, RGB."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, by label."""

    @property
    def fingerprint(self) -> str | None:
        """Digest of the content that does not depend on where it lies; None if the name says it all."""

    @property
    def view(self) -> CenterCrop | None:
        """The crop that evaluation sees of images of any size; None if all images have one size."""

    @property
    def labels(self) -> Labels:
        """The label of every example; no image is decoded for it."""

    def __len__(self) -> int: ...

    def expect(self, indices: Indices) -> None:
        """Hears which examples are read soon: where that takes a network, it asks for them now."""

    def read(self, indices: Indices, draws: Draws | None = None) -> tuple[PixelBatch, Labels, Mask]:
        """Returns images, labels and a mask of the examples with these numbers, in this order.

        Args:
            indices: Numbers of the examples.
            draws: Numbers that choose what training sees of each image. None gives what evaluation sees.

        Returns:
            The mask is False for an image that cannot be decoded and is to be skipped; it comes as zeros,
            with label 0.

        Raises:
            DataError: An image cannot be decoded and is not to be skipped.
        """

    def look(self, index: int, look: Look) -> tuple[list[Pixels], int] | None:
        """Returns several views of one example, decoded once, and its label; None if it is skipped.

        Raises:
            DataError: It cannot be decoded and is not to be skipped.
        """

    def describe(self, index: int) -> str:
        """Returns where an example is, for messages."""


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """A split that fits into memory, decoded once."""

    images: PixelBatch
    labels: Labels
    class_names: Sequence[str]
    fingerprint = None
    view = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def expect(self, indices: Indices) -> None:
        """Does nothing: nothing is waited for."""

    def read(self, indices: Indices, draws: Draws | None = None) -> tuple[PixelBatch, Labels, Mask]:
        del draws
        chosen = np.asarray(indices)
        return self.images[chosen], self.labels[chosen], np.ones(len(chosen), bool)

    def look(self, index: int, look: Look) -> tuple[list[Pixels], int]:
        return look_at(self.images[index], look), int(self.labels[index])

    def describe(self, index: int) -> str:
        return f"example {index} of {len(self)} in memory"


@dataclasses.dataclass(frozen=True)
class SyntheticSource:
    """Noise around a mean color of the class: made from the example's number, so that no disk is needed.

    Attributes:
        examples: Number of them; example i has label i % classes.
        image_size: Height and width in pixels.
        classes: Number of classes.
        seed: Seed of the noise; give training and test splits different ones.
    """

    examples: int
    image_size: int
    classes: int
    seed: int
    fingerprint = None
    view = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def class_names(self) -> Sequence[str]:
        return [f"class {label}" for label in range(self.classes)]

    @property
    def labels(self) -> Labels:
        return np.arange(self.examples, dtype=np.int32) % self.classes

    def __len__(self) -> int:
        return self.examples

    def expect(self, indices: Indices) -> None:
        """Does nothing: nothing is waited for."""

    def read(self, indices: Indices, draws: Draws | None = None) -> tuple[PixelBatch, Labels, Mask]:
        del draws
        labels = np.asarray(indices) % self.classes
        colors = np.random.RandomState(0).randint(64, 192, (self.classes, 3))
        images = np.empty((len(labels), *self.image_shape), np.uint8)
        for image, index, label in zip(images, indices, labels, strict=True):
            noise = np.random.Generator(np.random.Philox(key=[self.seed, int(index)]))
            image[:] = colors[label] + noise.integers(-64, 64, self.image_shape)
        return images, labels.astype(np.int32), np.ones(len(labels), bool)

    def look(self, index: int, look: Look) -> tuple[list[Pixels], int]:
        return look_at(self.read([index])[0][0], look), index % self.classes

    def describe(self, index: int) -> str:
        return f"synthetic example {index}"


def read_all(source: Source, indices: Indices) -> tuple[PixelBatch, Labels]:
    """Returns examples as evaluation sees them.

    Raises:
        DataError: Names an example that cannot be decoded, even where such examples are to be skipped.
    """
    images, labels, mask = source.read(indices)
    if not mask.all():
        raise DataError(f"{source.describe(int(indices[int(mask.argmin())]))} cannot be decoded")
    return images, labels


def read_decodable(source: Source, indices: Indices, draws: Draws | None = None) -> tuple[PixelBatch, Labels]:
    """Returns examples as `Source.read` does; in place of one that is skipped comes the next that is not.

    Raises:
        DataError: An image cannot be decoded and is not to be skipped, or there is none that can be decoded.
    """
    images, labels, mask = source.read(indices, draws)
    numbers = np.asarray(indices)
    for _ in range(len(source)):
        left = np.flatnonzero(~mask)
        if not len(left):
            return images, labels
        numbers = (numbers + 1) % len(source)
        images[left], labels[left], mask[left] = source.read(
            numbers[left], None if draws is None else draws[left]
        )
    raise DataError(f"none of the {len(source)} images can be decoded")
