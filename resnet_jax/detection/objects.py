"""Objects and detections of images, as arrays of fixed shape with a mask."""

from typing import NamedTuple

from jaxtyping import Array


class Objects(NamedTuple):
    """Ground truth of an image, or with a leading axis of a batch.

    Attributes:
        box: float[..., m, 4]: left, top, right and bottom edge in pixels of the network's image.
        label: int32[..., m]: classes, from 0.
        valid: bool[..., m]: which objects there are.
        ignored: bool[..., m]: crowds and difficult objects, which are neither learned nor counted as missed.
    """

    box: Array
    label: Array
    valid: Array
    ignored: Array


class Detections(NamedTuple):
    """What was found in an image, or with a leading axis in a batch; the likeliest first.

    Attributes:
        box: float[..., d, 4]: left, top, right and bottom edge in pixels of the network's image.
        score: float[..., d]: probability of the class.
        label: int32[..., d]: classes, from 0.
        valid: bool[..., d]: which detections there are.
    """

    box: Array
    score: Array
    label: Array
    valid: Array
