"""The `ObjectSource` protocol: random access to images with objects, by number; and the embedded scenes."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8

from resnet_jax.data.data_error import DataError
from resnet_jax.data.scenes import SCENES, SIDE, Scene, scene


class Annotation(NamedTuple):
    """The objects of an image, in pixels of the original.

    Attributes:
        box: Left, top, right and bottom edges: [m, 4].
        label: Classes, from 0: [m].
        crowd: Boxes around groups of objects: [m].
        difficult: Objects that need not be found: [m].
        area: Areas in pixels, of the segmentation where there is one: [m].
    """

    box: Float[np.ndarray, "m 4"]
    label: Int32[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]
    difficult: Bool[np.ndarray, " m"]
    area: Float[np.ndarray, " m"]


class ObjectSource(Protocol):
    """A split of a data set for detection, numbered from 0."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, by label."""

    @property
    def fingerprint(self) -> str | None:
        """Digest of the content that does not depend on where it lies; None if the name says it all."""

    @property
    def dropped(self) -> dict[str, int]:
        """Numbers of the annotated objects that were dropped, by the reason."""

    def __len__(self) -> int: ...

    def size(self, index: int) -> tuple[int, int]:
        """Returns height and width of an image; it is not decoded for it."""

    def annotation(self, index: int) -> Annotation:
        """Returns the objects of an image."""

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the pixels of an image.

        Raises:
            DataError: It cannot be decoded.
        """

    def describe(self, index: int) -> str:
        """Returns where an example is, for messages."""


@dataclasses.dataclass(frozen=True)
class SceneSource:
    """The embedded scenes of a split, made when they are first asked for and kept."""

    split: str
    count: int
    fingerprint = None
    class_names = tuple(str(digit) for digit in range(10))

    @property
    def dropped(self) -> dict[str, int]:
        return {}

    @functools.cached_property
    def _made(self) -> dict[int, Scene]:
        return {}

    def _scene(self, index: int) -> Scene:
        if index not in self._made:
            self._made[index] = scene(self.split, index)
        return self._made[index]

    def __len__(self) -> int:
        return self.count

    def size(self, index: int) -> tuple[int, int]:
        del index
        return SIDE, SIDE

    def annotation(self, index: int) -> Annotation:
        _, boxes, labels, difficult = self._scene(index)
        sides = boxes[:, 2:] - boxes[:, :2]
        return Annotation(boxes, labels, np.zeros(len(labels), bool), difficult, sides.prod(1))

    def image(self, index: int) -> UInt8[np.ndarray, "128 128 3"]:
        return self._scene(index).image

    def describe(self, index: int) -> str:
        return f"scene {index} of {self.split}"


def open_scenes(split: str) -> SceneSource:
    """Returns the embedded scenes of a split.

    Raises:
        DataError: There is no such split.
    """
    if split not in SCENES:
        raise DataError(f"the scenes have no split {split!r}; they have {', '.join(SCENES)}")
    return SceneSource(split, SCENES[split])
