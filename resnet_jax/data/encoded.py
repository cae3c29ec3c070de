"""Sets of encoded images of any size, decoded as they are asked for and seen through a view of one size."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from resnet_jax.data.choices import ERROR, RESIZED, SCALE
from resnet_jax.data.crops import Box, CenterCrop, Look, ResizedCrop, ScaleCrop, View
from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.data.decode import decode_crops, image_size
from resnet_jax.data.scale import Pixels, crop
from resnet_jax.data.source import Draws, Indices, Labels, Mask, PixelBatch

Payload = bytes | Pixels
"""An image file, or its pixels where these are stored."""


class Examples(Protocol):
    """A split of a set of image files, numbered from 0."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, by label."""

    @property
    def fingerprint(self) -> str | None:
        """Digest of the content that does not depend on where it lies; None if the name says it all."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Payload, int]:
        """Returns the image and the label of an example."""

    def expect(self, indices: Sequence[int]) -> None:
        """Hears which examples are read soon: where that takes a network, it asks for them now."""

    def label(self, index: int) -> int:
        """Returns the label alone."""

    def stamp(self, index: int) -> str:
        """Returns class, name, size and modification time of an example, as far as they are known."""

    def describe(self, index: int) -> str:
        """Returns where an example is, for messages."""


@dataclasses.dataclass(frozen=True)
class DecodedSource:
    """A split, decoded and cropped as it is read.

    Attributes:
        examples: The split.
        view: What evaluation sees of an image.
        random_view: What training sees of it.
        corrupt: "error" or "skip".
        skipped: Why an example was left out, by number; shared by the threads of a process.
    """

    examples: Examples
    view: CenterCrop
    random_view: View
    corrupt: str = ERROR
    skipped: dict[int, str] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.view.size, self.view.size, 3)

    @property
    def class_names(self) -> Sequence[str]:
        return self.examples.class_names

    @property
    def fingerprint(self) -> str | None:
        return self.examples.fingerprint

    @property
    def labels(self) -> Labels:
        return np.array([self.examples.label(index) for index in range(len(self))], np.int32)

    def __len__(self) -> int:
        return len(self.examples)

    def expect(self, indices: Indices) -> None:
        self.examples.expect([int(index) for index in indices])

    def read(self, indices: Indices, draws: Draws | None = None) -> tuple[PixelBatch, Labels, Mask]:
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels, mask = np.zeros(len(indices), np.int32), np.ones(len(indices), bool)
        view = self.view if draws is None else self.random_view
        rows = [()] * len(indices) if draws is None else draws.tolist()
        self.expect(indices)
        for place, (index, drawn) in enumerate(zip(map(int, indices), rows, strict=True)):
            payload, label = self.examples.read(index)
            try:
                size = _size(payload)
                _see(payload, [view.box(*size, drawn)], size, [images[place]])
                labels[place] = label
            except CorruptImageError as error:
                self._leave_out(index, error)
                images[place], mask[place] = 0, False
        return images, labels, mask

    def look(self, index: int, look: Look) -> tuple[list[Pixels], int] | None:
        payload, label = self.examples.read(index)
        try:
            size = _size(payload)
            sights = look(*size)
            seen = [np.empty((sight.height, sight.width, 3), np.uint8) for sight in sights]
            _see(payload, [sight.box for sight in sights], size, seen)
            return seen, label
        except CorruptImageError as error:
            self._leave_out(index, error)
            return None

    def describe(self, index: int) -> str:
        return self.examples.describe(index)

    def _leave_out(self, index: int, error: CorruptImageError) -> None:
        reason = f"{self.describe(index)}: {error}"
        if self.corrupt == ERROR:
            raise DataError(f"{reason}; fix or remove it, or set --config.data.corrupt=skip") from error
        if self.skipped.setdefault(index, reason) is reason:  # Of several threads one reports it.
            print(f"resnet-jax: left out {reason}; {len(self.skipped)} so far", file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """How encoded images are decoded: which part of them, at which size.

    Attributes:
        crop: Crop of training images: "scale", "resized" or "center".
        size: Side of all crops.
        scales: The range of the shorter side, for "scale".
        areas: The range of the share of the area, for "resized".
        test_scale: The shorter side in evaluation.
        corrupt: What happens to an image that cannot be decoded: "error" or "skip".
    """

    crop: str
    size: int
    scales: tuple[int, int]
    areas: tuple[float, float]
    test_scale: int
    corrupt: str = ERROR

    def source(self, examples: Examples) -> DecodedSource:
        """Returns the examples, decoded in this way."""
        center = CenterCrop(self.size, self.test_scale)
        random_views: dict[str, View] = {
            SCALE: ScaleCrop(self.size, *self.scales),
            RESIZED: ResizedCrop(self.size, self.areas),
        }
        return DecodedSource(examples, center, random_views.get(self.crop, center), self.corrupt)


def _size(payload: Payload) -> tuple[int, int]:
    return (payload.shape[1], payload.shape[0]) if isinstance(payload, np.ndarray) else image_size(payload)


def _see(payload: Payload, boxes: Sequence[Box], size: tuple[int, int], outs: Sequence[Pixels]) -> None:
    if isinstance(payload, np.ndarray):
        for box, out in zip(boxes, outs, strict=True):
            crop(payload, box, out)
    else:
        decode_crops(payload, boxes, size, outs)
