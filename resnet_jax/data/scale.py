"""A box of an image, scaled once: linearly, or by averaging areas where it shrinks by more than 1.5.

OpenCV's fast resize begins at whole pixels of the image, and a box begins anywhere. A crop that begins k
pixels earlier begins elsewhere between two pixels of the image: of the first few k, the one that comes
nearest to a whole pixel is taken, and its first k pixels are cut off. Where none comes near enough, a slower
function that begins anywhere is used.
"""

import functools
import math
import threading

import cv2
import numpy as np
from jaxtyping import UInt8

from resnet_jax.data.crops import Box, Look

Pixels = UInt8[np.ndarray, "h w 3"]

LINEAR_LIMIT = 1.5
"""Images are interpolated linearly up to this shrinkage and averaged beyond it, to avoid aliasing."""

_PHASES = 16  # Pixels before the crop that are tried as its beginning.
_TOLERANCE = 0.08  # How far from where it should be a box may be taken, in pixels of the image.
_threads = threading.local()
_BEYOND = 4  # Pixels on the right and below a box that its last ones are interpolated with.
_SUBPIXELS = 32  # Of OpenCV's table of interpolation.


def surroundings(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    """Returns the pixels that `crop` may look at, as left, top, right and bottom, also beyond the image.

    Args:
        box: In pixels of the image.
        height: Height of the result.
        width: Width of the result.
    """
    return (
        math.floor(box.left - _PHASES * box.width / width) - 1,
        math.floor(box.top - _PHASES * box.height / height) - 1,
        math.ceil(box.left + box.width) + _BEYOND,
        math.ceil(box.top + box.height) + _BEYOND,
    )


def crop(
    pixels: UInt8[np.ndarray, "H W 3"],
    box: Box,
    out: UInt8[np.ndarray, "h w 3"],
    origin: tuple[int, int] = (0, 0),
) -> None:
    """Scales a box of an image once to the shape of `out`, and writes it there.

    Equal to scaling the whole image by the box's factor and cropping what the box holds, but for rounding and
    for the tolerance.

    Args:
        pixels: The image, or a part of it that holds the `surroundings` of the box, as far as the image
            reaches.
        box: In pixels of the image.
        out: Array that the result is written to.
        origin: Left and top of the part.
    """
    keep_to_one_thread()
    height, width = out.shape[:2]
    across, down = box.width / width, box.height / height
    (left, skip_x, error_x), (top, skip_y, error_y) = (
        _whole_start(box.left, across),
        _whole_start(box.top, down),
    )
    average = max(across, down) > LINEAR_LIMIT
    if max(error_x, error_y) > _TOLERANCE:
        if not average:
            _interpolate(pixels, box, out, origin)
            return
        # Moved by a part of a pixel, the box begins at a whole one; half the sharpness of one pixel is
        # averaged away anyway.
        moved = Box(box.left, box.top, math.ceil(box.width) + 1, math.ceil(box.height) + 1)
        whole = np.empty((int(moved.height), int(moved.width), 3), np.uint8)
        _interpolate(pixels, moved, whole, origin)
        pixels, origin, left, top, skip_x, skip_y = whole, (0, 0), 0, 0, 0, 0
    # One more pixel on the right and below, that the last ones of the crop are interpolated with.
    left, top = left - origin[0], top - origin[1]
    right = min(pixels.shape[1], left + math.ceil((width + skip_x) * across) + 1)
    bottom = min(pixels.shape[0], top + math.ceil((height + skip_y) * down) + 1)
    target = thread_memory("scaled", round((bottom - top) / down), round((right - left) / across))
    result = cv2.resize(
        pixels[top:bottom, left:right],
        None,
        target,
        1 / across,
        1 / down,
        cv2.INTER_AREA if average else cv2.INTER_LINEAR,
    )
    result = result[skip_y : skip_y + height, skip_x : skip_x + width]
    missing = height - result.shape[0], width - result.shape[1]
    if any(missing):  # The image ends half a pixel short of the crop.
        result = cv2.copyMakeBorder(result, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    out[:] = result


def look_at(pixels: Pixels, look: Look) -> list[Pixels]:
    """Returns what is seen of an image in memory."""
    seen = []
    for sight in look(pixels.shape[1], pixels.shape[0]):
        seen.append(np.empty((sight.height, sight.width, 3), np.uint8))
        crop(pixels, sight.box, seen[-1])
    return seen


@functools.cache
def keep_to_one_thread() -> None:
    """Keeps OpenCV from starting threads of its own: the images of a batch are decoded side by side."""
    cv2.setNumThreads(0)


def _whole_start(start: float, step: float) -> tuple[int, int, float]:
    """Returns the whole pixel to begin at, the pixels of the result to cut off, and the error in pixels."""
    best, pixel, skip = math.inf, 0, 0
    for count in range(_PHASES):
        begin = start - count * step
        if begin < -1e-6:
            break
        error = abs(begin - round(begin))
        if error < best - 1e-6:
            best, pixel, skip = error, round(begin), count
            if error < 1e-6:
                break
    return pixel, skip, best


def thread_memory(purpose: str, height: int, width: int) -> Pixels:
    """Returns memory for an image, the thread's until the next call for this purpose.

    Fresh pages would cost as much as scaling into them, and a twelfth of a decoding.
    """
    size, buffers = height * width * 3, _threads.__dict__
    if purpose not in buffers or buffers[purpose].size < size:
        buffers[purpose] = np.empty(size, np.uint8)
    return buffers[purpose][:size].reshape(height, width, 3)


def _interpolate(
    pixels: UInt8[np.ndarray, "H W 3"], box: Box, out: UInt8[np.ndarray, "h w 3"], origin: tuple[int, int]
) -> None:
    height, width = out.shape[:2]
    left, top = (
        max(0, math.floor(box.left) - 1),
        max(0, math.floor(box.top) - 1),
    )  # OpenCV's places are 16 bits.
    right, bottom = math.ceil(box.left + box.width) + 1, math.ceil(box.top + box.height) + 1
    pixels = pixels[top - origin[1] : bottom - origin[1], left - origin[0] : right - origin[0]]
    box = box._replace(left=box.left - left, top=box.top - top)
    x, fraction_x = _places(box.left, box.width, width)
    y, fraction_y = _places(box.top, box.height, height)
    places = np.empty((height, width, 2), np.int16)
    places[..., 0] = x
    places[..., 1] = y[:, None]
    fractions = (fraction_y[:, None] * _SUBPIXELS + fraction_x).astype(np.uint16)
    cv2.remap(pixels, places, fractions, cv2.INTER_LINEAR, out, cv2.BORDER_REPLICATE)


def _places(start: float, length: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    # The pixel before each place of the result, and the distance from it in 32nds of a pixel.
    places = np.rint(((np.arange(count) + 0.5) * (length / count) + start - 0.5) * _SUBPIXELS).astype(
        np.int32
    )
    return places >> 5, places & (_SUBPIXELS - 1)
