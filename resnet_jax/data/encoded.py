"""Sets of encoded images of any size, decoded as they are asked for and seen through a view of one size."""

import dataclasses
import sys
import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from resnet_jax.data.choices import ERROR, RESIZED, SCALE
from resnet_jax.data.crops import CenterCrop, Look, ResizedCrop, ScaleCrop, View
from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.data.decode import decode_crop, decode_crops, image_size
from resnet_jax.data.scale import Pixels, crop, look_at
from resnet_jax.data.source import Draws, Indices, Labels, Mask, PixelBatch

Payload = bytes | Pixels
"""An image file, or its pixels where these are stored."""


class Examples(Protocol):
    """A split of a set of image files, numbered from 0."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, by label."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Payload, int]:
        """Returns the image and the label of an example."""

    def label(self, index: int) -> int:
        """Returns the label alone."""

    def describe(self, index: int) -> str:
        """Returns where an example is, for messages."""


class Skipped:
    """Examples that could not be decoded, each reported once; shared by the threads of a process."""

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._reasons)

    def __getstate__(self) -> dict[int, str]:
        return self._reasons

    def __setstate__(self, reasons: dict[int, str]) -> None:
        self._reasons, self._lock = reasons, threading.Lock()

    def add(self, index: int, reason: str) -> None:
        """Reports an example on stderr, the first time that it is met."""
        with self._lock:
            if index not in self._reasons:
                self._reasons[index] = reason
                print(f"resnet-jax: left out {reason}; {len(self._reasons)} so far", file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class DecodedSource:
    """A split, decoded and cropped as it is read.

    Attributes:
        examples: The split.
        view: What evaluation sees of an image.
        random_view: What training sees of it.
        corrupt: "error" or "skip".
        skipped: Counts what was left out.
    """

    examples: Examples
    view: CenterCrop
    random_view: View
    corrupt: str = ERROR
    skipped: Skipped = dataclasses.field(default_factory=Skipped, compare=False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.view.size, self.view.size, 3)

    @property
    def class_names(self) -> Sequence[str]:
        return self.examples.class_names

    @property
    def labels(self) -> Labels:
        return np.array([self.examples.label(index) for index in range(len(self))], np.int32)

    def __len__(self) -> int:
        return len(self.examples)

    def read(self, indices: Indices, draws: Draws | None = None) -> tuple[PixelBatch, Labels, Mask]:
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels, mask = np.zeros(len(indices), np.int32), np.ones(len(indices), bool)
        view = self.view if draws is None else self.random_view
        rows = [()] * len(indices) if draws is None else draws.tolist()
        for place, (index, drawn) in enumerate(zip(map(int, indices), rows, strict=True)):
            payload, label = self.examples.read(index)
            try:
                _see(payload, view, drawn, images[place])
                labels[place] = label
            except CorruptImageError as error:
                self._leave_out(index, error)
                images[place], mask[place] = 0, False
        return images, labels, mask

    def look(self, index: int, look: Look) -> tuple[list[Pixels], int] | None:
        payload, label = self.examples.read(index)
        try:
            return _look(payload, look), label
        except CorruptImageError as error:
            self._leave_out(index, error)
            return None

    def describe(self, index: int) -> str:
        return self.examples.describe(index)

    def _leave_out(self, index: int, error: CorruptImageError) -> None:
        where = self.describe(index)
        if self.corrupt == ERROR:
            raise DataError(
                f"{where}: {error}; fix or remove it, or set --config.data.corrupt=skip"
            ) from error
        self.skipped.add(index, f"{where}: {error}")


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """How encoded images are decoded: which part of them, at which size.

    Attributes:
        crop: Of training images: "scale", "resized" or "centre".
        size: Side of all crops.
        scales: The range of the shorter side, for "scale".
        areas: The range of the share of the area, for "resized".
        test_scale: The shorter side in evaluation.
        corrupt: What becomes of an image that cannot be decoded: "error" or "skip".
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


def _look(payload: Payload, look: Look) -> list[Pixels]:
    if isinstance(payload, np.ndarray):
        return look_at(payload, look)
    size = image_size(payload)
    sights = look(*size)
    seen = [np.empty((sight.height, sight.width, 3), np.uint8) for sight in sights]
    decode_crops(payload, [sight.box for sight in sights], size, seen)
    return seen


def _see(payload: Payload, view: View, drawn: Sequence[float], out: Pixels) -> None:
    if isinstance(payload, np.ndarray):
        height, width = payload.shape[:2]
        crop(payload, view.box(width, height, drawn), out)
    else:
        width, height = image_size(payload)
        decode_crop(payload, view.box(width, height, drawn), (width, height), out)
