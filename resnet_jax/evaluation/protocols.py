"""Test protocols: one view of an image, ten crops, or the whole image at several scales."""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from resnet_jax.data.crops import Box, Look, Sight, corners_and_center, fully_convolutional
from resnet_jax.data.source import Source
from resnet_jax.errors import UsageError

SINGLE, TEN_CROP, MULTI_SCALE = PROTOCOLS = ("single", "ten-crop", "multi-scale")
SOFTMAX, LOGITS = AVERAGES = ("softmax", "logits")

_PAPER_SIDE = 224  # Of the images that the paper's ImageNet nets are trained on.
_SCALES = (224, 256, 384, 480, 640)  # Shorter sides of the fully convolutional evaluation (§3.4).
_LEAST = 8  # Pixels of a side that a crop or a scale may have at least.


class ProtocolError(UsageError, ValueError):
    """A protocol or one of its options that does not exist, or that the data or the net does not allow."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to evaluate.

    Attributes:
        name: "single", the view that the run was tested with; "ten-crop", four corners and the center and
            their mirror images (§3.4); "multi-scale", the whole image at several scales.
        scales: Shorter sides for "multi-scale"; empty are the paper's 224, 256, 384, 480, 640, and for images
            of one size these in proportion to 224.
        crop: Side of the crops for "ten-crop"; 0 is the side that the run was tested with, and for images of
            one size 7/8 of their shorter side, as 224 is of 256.
        average: Over views, of "softmax" or "logits".
        mirrored: See the mirror image of every view too; ten crops have theirs in any case.

    Raises:
        ProtocolError: On creation, names the option that does not hold.
    """

    name: str = SINGLE
    scales: tuple[int, ...] = ()
    crop: int = 0
    average: str = SOFTMAX
    mirrored: bool = False

    def __post_init__(self) -> None:
        problems = {
            f"unknown protocol {self.name!r}; allowed are {', '.join(PROTOCOLS)}": self.name not in PROTOCOLS,
            f"the average is of {self.average!r}; allowed are {', '.join(AVERAGES)}": (
                self.average not in AVERAGES
            ),
            f"scales are for the protocol {MULTI_SCALE}, and this one is {self.name}; leave them out": (
                self.scales and self.name != MULTI_SCALE
            ),
            f"a crop is for the protocol {TEN_CROP}, and this one is {self.name}; leave it out": (
                self.crop and self.name != TEN_CROP
            ),
            f"the scales are {self.scales}; they must be different numbers of pixels from {_LEAST}": (
                len(set(self.scales)) < len(self.scales) or any(scale < _LEAST for scale in self.scales)
            ),
            f"the crop is {self.crop}; it must be a number of pixels from {_LEAST}": 0 < self.crop < _LEAST,
        }
        for problem, found in problems.items():
            if found:
                raise ProtocolError(problem)

    @property
    def both(self) -> bool:
        """Whether every view is seen in the mirror too."""
        return self.mirrored or self.name == TEN_CROP


def look_of(protocol: Protocol, source: Source) -> Look:
    """Returns what a protocol sees of the images of a source, by their width and height.

    Raises:
        ProtocolError: The crop is larger than the images.
    """
    view = source.view
    shorter = view.shorter if view else min(source.image_shape[:2])
    size = protocol.crop or (view.size if view else max(min(shorter, _LEAST), shorter * 7 // 8))
    if protocol.name == MULTI_SCALE:
        scales = protocol.scales or default_scales(source)
        return lambda width, height: [fully_convolutional(width, height, shorter=scale) for scale in scales]
    if protocol.name == SINGLE:
        if view is None:
            return lambda width, height: [Sight(Box(0, 0, width, height), height, width)]
        return lambda width, height: [Sight(view.box(width, height), view.size, view.size)]
    if size > shorter:
        raise ProtocolError(
            f"the crop is {size}, and the shorter side of the images {shorter} pixels; it may be at most as "
            "large"
        )
    return lambda width, height: [
        Sight(box, size, size) for box in corners_and_center(width, height, shorter=shorter, size=size)
    ]


def default_scales(source: Source) -> tuple[int, ...]:
    """Returns the paper's scales; for images of one size, the same in proportion to their side."""
    if source.view is not None:
        return _SCALES
    return tuple(round(scale * min(source.image_shape[:2]) / _PAPER_SIDE) for scale in _SCALES)


@dataclasses.dataclass(frozen=True)
class SeenExamples:
    """The examples of a split as a protocol sees them, by number; None in place of one that is skipped.

    An example is its number, its label, and by shape the views of that shape, [views, height, width, 3].
    """

    source: Source
    look: Look
    size = 1

    def expect(self, number: int) -> None:
        self.source.expect([number])

    def __getitem__(
        self, number: int
    ) -> tuple[int, int, dict[tuple[int, int], UInt8[np.ndarray, "v h w 3"]]] | None:
        found = self.source.look(number, self.look)
        if found is None:
            return None
        pictures, label = found
        return number, label, _by_shape(pictures, [picture.shape[:2] for picture in pictures])


def means_of(
    image_mean: Float[np.ndarray, "..."], source: Source, protocol: Protocol
) -> Callable[[tuple[int, int]], Float[np.ndarray, "..."]]:
    """Returns the mean to subtract from views of a shape: [3], [h, w, 3] or [views, h, w, 3].

    A mean per channel is what it is. A mean per pixel of images of one size is seen as the images are,
    through the same crops and at the same scales. Of crops from images of any size it is subtracted from
    crops of its own size. Elsewhere there is no telling which of its pixels belong where, and its average by
    channel is subtracted.
    """
    seen = {}
    if image_mean.ndim == 3 and source.view is None:
        sights = look_of(protocol, source)(image_mean.shape[1], image_mean.shape[0])
        seen = _by_shape(
            [_see_mean(image_mean, sight) for sight in sights],
            [(sight.height, sight.width) for sight in sights],
        )
    elif image_mean.ndim == 3 and protocol.name != MULTI_SCALE:
        seen = {image_mean.shape[:2]: image_mean}
    by_channel = image_mean.reshape(-1, 3).mean(0)
    return lambda shape: seen.get(shape, by_channel)


def _by_shape(
    pictures: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], np.ndarray]:
    return {
        shape: np.stack([picture for picture, its in zip(pictures, shapes, strict=True) if its == shape])
        for shape in dict.fromkeys(shapes)
    }


def _see_mean(mean: Float[np.ndarray, "h w 3"], sight: Sight) -> Float[np.ndarray, "h2 w2 3"]:
    left, top, right, bottom = (
        round(edge)
        for edge in (
            sight.box.left,
            sight.box.top,
            sight.box.left + sight.box.width,
            sight.box.top + sight.box.height,
        )
    )
    part = np.ascontiguousarray(mean[top:bottom, left:right])
    return (
        part
        if part.shape[:2] == (sight.height, sight.width)
        else cv2.resize(part, (sight.width, sight.height))
    )
