"""Crops: which box of an image is seen, as a pure function of the image's size and of uniform numbers.

Scaling an image and then cropping it sees the same as cropping a box of it and scaling that once. So a view
is a box, and no pixel that is cropped away is ever scaled.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

DRAWS = 32
"""Uniform numbers in [0, 1) that a view may use for one example."""

_STRIDE = 32  # Pixels of the image from one place of the ImageNet nets' last map to the next.


class Box(NamedTuple):
    """A part of an image, in its pixels; the coordinates are of pixels' edges and need not be whole."""

    left: float
    top: float
    width: float
    height: float


class Sight(NamedTuple):
    """A box of an image, and the height and width in pixels that it is seen at."""

    box: Box
    height: int
    width: int


Look = Callable[[int, int], Sequence[Sight]]
"""(width, height) of an image → what is seen of it, one sight or several."""


class View(Protocol):
    """A way to see an image of any size as a square of one size."""

    def box(self, width: int, height: int, draws: Sequence[float]) -> Box:
        """Returns the part of an image of this size that is seen; `draws` are in [0, 1)."""


@dataclasses.dataclass(frozen=True)
class ScaleCrop:
    """The scale augmentation of §3.4: a shorter side drawn uniformly from a range, and a random crop.

    Attributes:
        size: Side of the crop in pixels, 224 in the paper.
        shortest, longest: The range of the shorter side, both ends included; 256 and 480 in the paper.
    """

    size: int
    shortest: int
    longest: int

    def box(self, width: int, height: int, draws: Sequence[float]) -> Box:
        shorter = self.shortest + math.floor(draws[0] * (self.longest - self.shortest + 1))
        scaled_width, scaled_height = scaled(width, height, shorter)
        return crop_of_scaled(
            width,
            height,
            shorter=shorter,
            left=math.floor(draws[1] * (scaled_width - self.size + 1)),
            top=math.floor(draws[2] * (scaled_height - self.size + 1)),
            size=self.size,
        )


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """The random resized crop of later recipes (arXiv 1409.4842, §6): area and aspect ratio are drawn.

    Attributes:
        size: Side of the crop in pixels.
        areas: Least and greatest share of the image's area.
        aspects: Least and greatest ratio of width to height, drawn uniformly in its logarithm.
    """

    size: int
    areas: tuple[float, float] = (0.08, 1.0)
    aspects: tuple[float, float] = (3 / 4, 4 / 3)

    def box(self, width: int, height: int, draws: Sequence[float]) -> Box:
        low, high = map(math.log, self.aspects)
        for area_draw, aspect_draw, left_draw, top_draw in zip(*[iter(draws)] * 4, strict=False):
            area = width * height * (self.areas[0] + area_draw * (self.areas[1] - self.areas[0]))
            aspect = math.exp(low + aspect_draw * (high - low))
            box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < box_width <= width and 0 < box_height <= height:
                return Box(
                    math.floor(left_draw * (width - box_width + 1)),
                    math.floor(top_draw * (height - box_height + 1)),
                    box_width,
                    box_height,
                )
        # None of eight fits: the largest box in the middle whose aspect ratio is allowed.
        box_width = min(width, max(1, round(height * self.aspects[1])))
        box_height = min(height, max(1, round(width / self.aspects[0])))
        return Box((width - box_width) // 2, (height - box_height) // 2, box_width, box_height)


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """The middle of the image at a fixed scale; nothing is drawn.

    Attributes:
        size: Side of the crop in pixels.
        shorter: The shorter side, 256 in the authors' README.
    """

    size: int
    shorter: int

    def box(self, width: int, height: int, draws: Sequence[float] = ()) -> Box:
        del draws
        scaled_width, scaled_height = scaled(width, height, self.shorter)
        left, top = (scaled_width - self.size) // 2, (scaled_height - self.size) // 2
        return crop_of_scaled(width, height, shorter=self.shorter, left=left, top=top, size=self.size)


def corners_and_center(width: int, height: int, *, shorter: int, size: int) -> list[Box]:
    """Returns five boxes of 10-crop testing: four corners and the center; mirror them for the other five."""
    scaled_width, scaled_height = scaled(width, height, shorter)
    right, bottom = scaled_width - size, scaled_height - size
    return [
        crop_of_scaled(width, height, shorter=shorter, left=left, top=top, size=size)
        for left, top in ((0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2))
    ]


def fully_convolutional(width: int, height: int, *, shorter: int) -> Sight:
    """Returns the image at a fixed scale, for fully convolutional testing.

    The shorter side is seen as a whole. Of the longer side the middle is seen, cut so that few shapes occur
    and each is compiled once: it exceeds the shorter one by a multiple of a quarter of that, rounded up to a
    multiple of 32, and is at most twice as long. With a shorter side of 224, 256, 384, 480 or 640 both sides
    are multiples of 32, and there are at most nine shapes.

    Args:
        width: Width of the image.
        height: Height of the image.
        shorter: Pixels of the shorter side.
    """
    scaled_width, scaled_height = scaled(width, height, shorter)
    step = math.ceil(shorter / 4 / _STRIDE) * _STRIDE
    longer = shorter + min(max(scaled_width, scaled_height) - shorter, shorter) // step * step
    seen_width, seen_height = (longer, shorter) if scaled_width >= scaled_height else (shorter, longer)
    left, top = (scaled_width - seen_width) // 2, (scaled_height - seen_height) // 2
    across, down = width / scaled_width, height / scaled_height
    return Sight(
        Box(left * across, top * down, seen_width * across, seen_height * down), seen_height, seen_width
    )


def scaled(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Returns width and height of the image whose shorter side is made `shorter` and whose shape is kept."""
    scale = shorter / min(width, height)
    return max(shorter, round(width * scale)), max(shorter, round(height * scale))


def crop_of_scaled(width: int, height: int, *, shorter: int, left: int, top: int, size: int) -> Box:
    """Returns the part of an image that a square crop of it sees after its shorter side was made `shorter`.

    Args:
        width: Width of the image.
        height: Height of the image.
        shorter: Shorter side of the scaled image.
        left: Left edge of the crop, in pixels of the scaled image.
        top: Top edge of the crop, in pixels of the scaled image.
        size: The crop's side, in pixels of the scaled image.
    """
    scaled_width, scaled_height = scaled(width, height, shorter)
    across, down = width / scaled_width, height / scaled_height
    return Box(left * across, top * down, size * across, size * down)
