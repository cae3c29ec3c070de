"""Pictures in any form, of any size, as uint8 images of a network's size."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8

from resnet_jax.data.crops import CenterCrop
from resnet_jax.data.decode import decode, decode_crops, image_size
from resnet_jax.data.scale import Pixels, crop
from resnet_jax.errors import UsageError

if TYPE_CHECKING:
    import PIL.Image

Picture: TypeAlias = "str | os.PathLike[str] | PIL.Image.Image | UInt8[np.ndarray, '...']"
"""A path or URL, a PIL image, or uint8 pixels [H, W, 3] or, gray, [H, W]."""

Pictures: TypeAlias = "Picture | UInt8[jax.Array, '...'] | Sequence[Pictures]"
"""One picture, a batch of uint8 pixels [N, H, W, 3] or, gray, [N, H, W], or a sequence of pictures."""


class InferenceError(UsageError):
    """Images that a network does not take; the message says what is allowed."""


def list_pictures(pictures: Pictures) -> list[Picture]:
    """Returns the pictures one by one.

    Raises:
        InferenceError: An array is not of bytes, or its shape is not that of pictures.
    """
    if isinstance(pictures, str | os.PathLike | _pil_image()):
        return [pictures]
    if isinstance(pictures, list | tuple):
        return [one for several in pictures for one in list_pictures(several)]
    pixels = np.asarray(pictures)
    if pixels.dtype != np.uint8:
        raise InferenceError(
            f"images are uint8 with values from 0 to 255, and this is {pixels.dtype} of shape "
            f"{list(pixels.shape)}; to give "
            "the network floating-point input of its own kind, call model.apply(variables, "
            "trained.preprocess(x))"
        )
    gray = pixels.shape[-1:] != (3,)
    if pixels.ndim not in ((2, 3) if gray else (3, 4)) or 0 in pixels.shape[pixels.ndim > 3 - gray :]:
        raise InferenceError(
            "an array of images has the shape [H, W, 3] or [N, H, W, 3], or for gray ones [H, W] or [N, H, "
            "W]; this one has "
            f"{list(pixels.shape)}"
        )
    return [pixels] if pixels.ndim == 3 - gray else list(pixels)


def fit(picture: Picture, view: CenterCrop, out: Pixels, *, repeat: bool) -> None:
    """Writes the part of a picture that a view shows, resized to the shape of `out`, there.

    Args:
        picture: Of any size.
        view: The part that is shown.
        out: uint8[size, size, 3], RGB, of the view's size.
        repeat: Enlarge a square picture by repeating its pixels if that gives the view's size.

    Raises:
        CorruptImageError: A file is no image, or not a whole one.
        OSError: A file cannot be read.
    """
    if isinstance(picture, str | os.PathLike):
        encoded = epath.Path(picture).read_bytes()
        width, height = image_size(encoded)
        if not (repeat and _divides(width, height, view.size)):
            decode_crops(encoded, [view.box(width, height)], (width, height), [out])
            return
        pixels = decode(encoded)
    else:
        pixels = np.asarray(picture.convert("RGB") if isinstance(picture, _pil_image()) else picture)
        height, width = pixels.shape[:2]
        if pixels.ndim == 2:
            pixels = pixels[..., None].repeat(3, axis=2)
    if repeat and _divides(width, height, view.size):
        out[:] = pixels.repeat(view.size // width, 0).repeat(view.size // width, 1)
    else:
        crop(pixels, view.box(width, height), out)


def _divides(width: int, height: int, size: int) -> bool:
    return width == height and size % width == 0


def _pil_image() -> "type[PIL.Image.Image]":
    import PIL.Image  # Here, since few need it.

    return PIL.Image.Image
