"""Sets of encoded images of any size, decoded as they are asked for and seen through a view of one size."""

import dataclasses
import sys
import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8

from resnet_jax.data.choices import ERROR
from resnet_jax.data.decode import decode_crop, decode_crops, image_size
from resnet_jax.data.errors import CorruptImageError, DataError
from resnet_jax.data.scale import crop
from resnet_jax.data.views import Look, Sight, View

Indices = Sequence[int] | Int[np.ndarray, " n"]

Payload = bytes | UInt8[np.ndarray, "h w 3"]
"""An image file, or its pixels where these are stored."""


class Examples(Protocol):
    """A split of a set of image files, numbered from 0."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, by label."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Payload, int]:
        """Returns the image and the label of an example."""

    def describe(self, index: int) -> str:
        """Returns where an example is, for messages."""


class Skipped:
    """The numbers of the examples that could not be decoded, each reported once; shared by the threads of a process."""

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
        view: What is seen of an image where nothing is drawn.
        random_view: What is seen in training; None is the same.
        corrupt: "error" or "skip".
        skipped: Counts what was left out.
    """

    examples: Examples
    view: View
    random_view: View | None = None
    corrupt: str = ERROR
    skipped: Skipped = dataclasses.field(default_factory=Skipped, compare=False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.view.size, self.view.size, 3)

    @property
    def class_names(self) -> Sequence[str]:
        return self.examples.class_names

    def __len__(self) -> int:
        return len(self.examples)

    def read(self, indices: Indices) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, " n"]]:
        """Returns the examples through the view that draws nothing.

        Raises:
            DataError: Names an example that cannot be decoded, also where others would skip it.
        """
        images, labels, mask = self.read_masked(indices)
        if not mask.all():
            raise DataError(f"{self.examples.describe(int(indices[int(mask.argmin())]))} cannot be decoded")
        return images, labels

    def read_masked(
        self, indices: Indices
    ) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Returns the examples as `read`, and which of them are not to be skipped; those that are come as zeros."""
        images, labels = self._empty(len(indices))
        mask = [
            self._fill(int(index), self.view, (), images, labels, place)
            for place, index in enumerate(indices)
        ]
        return images, labels, np.array(mask, bool)

    def read_random(
        self, indices: Indices, draws: Float[np.ndarray, "n d"]
    ) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, " n"]]:
        """Returns the examples through the random view, each with its own draws; for one that is skipped, the next that is not.

        Raises:
            DataError: Names an example that cannot be decoded and is not to be skipped.
        """
        images, labels = self._empty(len(indices))
        view = self.random_view or self.view
        for place, (index, drawn) in enumerate(zip(indices, draws.tolist(), strict=True)):
            following = (int(index + offset) % len(self) for offset in range(len(self)))
            if not any(self._fill(number, view, drawn, images, labels, place) for number in following):
                raise DataError(f"none of the {len(self)} images can be decoded")
        return images, labels

    def look(self, index: int, look: Look) -> tuple[list[UInt8[np.ndarray, "h w 3"]], int] | None:
        """Returns what is seen of an example, decoded once, and its label; None for one that is skipped.

        Raises:
            DataError: It cannot be decoded and is not to be skipped.
        """
        payload, label = self.examples.read(index)
        try:
            return _look(payload, look), label
        except CorruptImageError as error:
            self._leave_out(index, error)
            return None

    def _empty(self, count: int) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, " n"]]:
        return np.empty((count, *self.image_shape), np.uint8), np.zeros(count, np.int32)

    def _fill(
        self,
        index: int,
        view: View,
        drawn: Sequence[float],
        images: np.ndarray,
        labels: np.ndarray,
        place: int,
    ) -> bool:
        """Writes an example into its place of a batch, and tells whether it is not to be skipped."""
        payload, label = self.examples.read(index)
        try:
            _see(payload, view, drawn, images[place])
        except CorruptImageError as error:
            self._leave_out(index, error)
            images[place] = 0
            return False
        labels[place] = label
        return True

    def _leave_out(self, index: int, error: CorruptImageError) -> None:
        where = self.examples.describe(index)
        if self.corrupt == ERROR:
            raise DataError(
                f"{where}: {error}; mend or remove it, or set --config.data.corrupt=skip"
            ) from error
        self.skipped.add(index, f"{where}: {error}")


def look_at(pixels: UInt8[np.ndarray, "H W 3"], look: Look) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Returns what is seen of an image in memory."""
    sights = look(pixels.shape[1], pixels.shape[0])
    seen = _empty_pictures(sights)
    for sight, picture in zip(sights, seen, strict=True):
        crop(pixels, sight.box, picture)
    return seen


def _look(payload: Payload, look: Look) -> list[UInt8[np.ndarray, "h w 3"]]:
    if isinstance(payload, np.ndarray):
        return look_at(payload, look)
    size = image_size(payload)
    sights = look(*size)
    seen = _empty_pictures(sights)
    decode_crops(payload, [sight.box for sight in sights], size, seen)
    return seen


def _empty_pictures(sights: Sequence[Sight]) -> list[UInt8[np.ndarray, "h w 3"]]:
    return [np.empty((sight.height, sight.width, 3), np.uint8) for sight in sights]


def _see(payload: Payload, view: View, drawn: Sequence[float], out: np.ndarray) -> None:
    if isinstance(payload, np.ndarray):
        height, width = payload.shape[:2]
        crop(payload, view.box(width, height, drawn), out)
    else:
        width, height = image_size(payload)
        decode_crop(payload, view.box(width, height, drawn), (width, height), out)
