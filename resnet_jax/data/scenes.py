"""Scenes for detection that need no download: scikit-learn's real digits on crops of its two photographs.

A scene is a function of its split and its number: 0 to 4 digits of any color and of 24 to 64 pixels on a crop
of 128×128 pixels. Some hang over the border, some cover others. The splits share neither digits nor parts of
the photographs. Random numbers are Philox's raw stream and resizing is written out: a scene is the same
everywhere.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8

from resnet_jax.data.data_error import DataError
from resnet_jax.data.source import ArraySource

SIDE = 128
"""Height and width of a scene in pixels."""

SCENES = {"train": 3000, "test": 300}
"""Scenes of each split."""

SINGLE_DIGITS = {"train": 8192, "test": 1024}
"""Images of one digit of each split, for the classification that a detector begins with."""

SINGLE_SIDE = 48
"""Height and width of an image of one digit, in pixels."""

_DIGITS_TO_TRAIN = 1437
_COLUMNS = {"train": (0, 384), "test": (410, 640)}  # Of the photographs, which are 640 pixels wide.
_KEYS = {"train": 0, "test": 1}
_EMPTY = 0.05  # Share of scenes without a digit.
_OVER_BORDER = 0.2  # Share of digits that may hang over the border.
_OVERLAP = 0.3  # Largest IoU of two digits.
_OPAQUE = 0.35  # Opacity from which on a pixel belongs to a digit's box.
_CONTRAST = 220  # Least distance of a digit's color from what it covers, summed over channels.
_SEEN = 0.6  # Share of a digit that is seen, below which it is difficult.
_TRIES = 20


class Scene(NamedTuple):
    """An image and its objects.

    Attributes:
        image: The pixels.
        boxes: Left, top, right and bottom edges of what is seen of the digits, in pixels.
        labels: The digits.
        difficult: Digits that are covered or cut so that less than 60 % is seen.
    """

    image: UInt8[np.ndarray, "128 128 3"]
    boxes: Float[np.ndarray, "m 4"]
    labels: Int32[np.ndarray, " m"]
    difficult: Bool[np.ndarray, " m"]


class _Draws:
    """Uniform numbers in [0, 1), one after the other."""

    def __init__(self, *key: int) -> None:
        self._stream = np.random.Philox(key=np.array(key, np.uint64))

    def __call__(self) -> float:
        return float(int(self._stream.random_raw()) >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        return int(self() * count)


@functools.cache
def _photographs() -> tuple[UInt8[np.ndarray, "h w 3"], ...]:
    from sklearn.datasets import load_sample_images  # Here: other sources need not wait for it.

    return tuple(load_sample_images().images)


@functools.cache
def _digits() -> tuple[Float[np.ndarray, "n 8 8"], Int32[np.ndarray, " n"]]:
    from sklearn.datasets import load_digits  # Here: other sources need not wait for it.

    loaded = load_digits()
    return loaded.images / 16, loaded.target.astype(np.int32)


@functools.cache
def _stretch(side: int) -> Float[np.ndarray, "side 8"]:
    """Returns the matrix that resizes 8 pixels to `side`, linearly between their centers."""
    places = np.clip((np.arange(side) + 0.5) * 8 / side - 0.5, 0, 7)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(8)), 0)


def _background(draws: _Draws, split: str, side: int) -> Float[np.ndarray, "side side 3"]:
    photographs = _photographs()
    photograph = photographs[draws.below(len(photographs))]
    first, last = _COLUMNS[split]
    left = first + draws.below(last - first - side + 1)
    top = draws.below(photograph.shape[0] - side + 1)
    crop = photograph[top : top + side, left : left + side].astype(np.float64)
    return crop[:, ::-1] if draws() < 0.5 else crop


def _glyph(draws: _Draws, split: str, side: int) -> tuple[Float[np.ndarray, "side side"], int]:
    """Returns the opacities of a digit, and which it is."""
    images, labels = _digits()
    count = _DIGITS_TO_TRAIN if split == "train" else len(images) - _DIGITS_TO_TRAIN
    number = draws.below(count) + (0 if split == "train" else _DIGITS_TO_TRAIN)
    stretch = _stretch(side)
    return stretch @ images[number] @ stretch.T, int(labels[number])


def _color(draws: _Draws, covered: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3"]:
    """Returns a color far from the mean of what it covers."""
    mean = covered.mean(0)
    color = np.zeros(3)
    for _ in range(_TRIES):
        color = np.array([draws.below(256) for _ in range(3)], np.float64)
        if np.abs(color - mean).sum() >= _CONTRAST:
            return color
    return np.where(mean < 128, 255.0, 0.0)


def _cut(glyph: Float[np.ndarray, "s s"], left: int, top: int, side: int) -> tuple[slice, slice, np.ndarray]:
    """Returns rows and columns of the image that a glyph covers, and its opacities there."""
    rows = slice(max(0, top), min(side, top + len(glyph)))
    columns = slice(max(0, left), min(side, left + len(glyph)))
    return (
        rows,
        columns,
        glyph[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left],
    )


def _tight(opacities: np.ndarray, left: int, top: int) -> Float[np.ndarray, "4"] | None:
    """Returns the box of what is opaque; None if nothing is."""
    rows, columns = (np.flatnonzero((opacities > _OPAQUE).any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return np.array(edges, np.float64) + np.array([left, top, left, top])


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.maximum(sides, 0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)


def scene(split: str, number: int) -> Scene:
    """Returns a scene.

    Args:
        split: "train" or "test".
        number: Number of the scene, from 0; there is no last one.
    """
    draws = _Draws(_KEYS[split], number)
    image = _background(draws, split, SIDE)
    boxes = np.zeros((0, 4))
    labels: list[int] = []
    owner = np.full((SIDE, SIDE), -1)
    opaque = []
    for _ in range(0 if draws() < _EMPTY else 1 + draws.below(4)):
        glyph, label = _glyph(draws, split, round(24 * math.exp(draws() * math.log(64 / 24))))
        side = len(glyph)
        margin = side // 2 if draws() < _OVER_BORDER else 0
        for _ in range(_TRIES):
            left = draws.below(SIDE - side + 1 + 2 * margin) - margin
            top = draws.below(SIDE - side + 1 + 2 * margin) - margin
            rows, columns, opacities = _cut(glyph, left, top, SIDE)
            box = _tight(opacities, columns.start, rows.start)
            if box is not None and not (_iou(box, boxes) >= _OVERLAP).any():
                break
        else:
            continue
        color = _color(draws, image[rows, columns].reshape(-1, 3))
        image[rows, columns] += opacities[..., None] * (color - image[rows, columns])
        owner[rows, columns][opacities > _OPAQUE] = len(labels)
        opaque.append((glyph > _OPAQUE).sum())
        boxes, labels = np.concatenate([boxes, box[None]]), [*labels, label]
    seen = np.array([(owner == which).sum() / total for which, total in enumerate(opaque)])
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return Scene(pixels, boxes, np.array(labels, np.int32), seen < _SEEN)


def single_digit(split: str, number: int) -> tuple[UInt8[np.ndarray, "48 48 3"], int]:
    """Returns an image of one digit on a piece of a photograph, and the digit.

    Args:
        split: "train" or "test".
        number: Number of the image, from 0.
    """
    draws = _Draws(_KEYS[split] + 2, number)
    image = _background(draws, split, SINGLE_SIDE)
    glyph, label = _glyph(draws, split, round(SINGLE_SIDE * (0.5 + 0.5 * draws())))
    room = SINGLE_SIDE - len(glyph)
    rows, columns, opacities = _cut(glyph, draws.below(room + 9) - 4, draws.below(room + 9) - 4, SINGLE_SIDE)
    color = _color(draws, image[rows, columns].reshape(-1, 3))
    image[rows, columns] += opacities[..., None] * (color - image[rows, columns])
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), label


def open_single_digits(split: str) -> ArraySource:
    """Returns the images of one digit of a split, in memory.

    Raises:
        DataError: There is no such split.
    """
    if split not in SINGLE_DIGITS:
        raise DataError(f"photo_digits has no split {split!r}; it has {', '.join(SINGLE_DIGITS)}")
    made = [single_digit(split, number) for number in range(SINGLE_DIGITS[split])]
    images, labels = (np.stack([one[part] for one in made]) for part in (0, 1))
    return ArraySource(images, labels.astype(np.int32), [str(digit) for digit in range(10)])
