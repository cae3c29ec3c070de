"""What a network expects of its images: their size, and the mean and scale of their pixels.

Pictures in any form, of any size, become uint8 images of that size.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, UInt8

from resnet_jax.data.crops import CenterCrop
from resnet_jax.data.decode import decode, decode_by_pillow, decode_crops, image_size
from resnet_jax.data.scale import crop as crop_pixels
from resnet_jax.errors import UsageError
from resnet_jax.files import JsonObject, as_path
from resnet_jax.training.stored_preprocessing import ANTIALIAS, PILLOW_BICUBIC, PILLOW_BILINEAR, REPEAT

if TYPE_CHECKING:
    import PIL.Image

LARGEST = 4096  # Pixels of a side.
PILLOW_FILTERS = {PILLOW_BILINEAR: 2, PILLOW_BICUBIC: 3}
"""Numbers of Pillow's filters."""

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
            "the network its own floating-point input, call model.apply(variables, "
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


def read_pixels(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels of a picture in RGB.

    Raises:
        CorruptImageError: A file is no image, or not a whole one.
        OSError: A file cannot be read.
    """
    if isinstance(picture, str | os.PathLike):
        return decode(as_path(picture).read_bytes()).copy()
    pixels = np.asarray(picture.convert("RGB") if isinstance(picture, _pil_image()) else picture)
    return pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, axis=2)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From a picture to the input of a net: (center crop of the resized picture - image_mean) · input_scale.

    The mean is subtracted before the net, as for every net of this package; the scale is an option of the net
    (`input_scale` of create_model), so that whatever evaluates, trains or exports the net applies it.

    Attributes:
        image_mean: float32[3] or [H, W, 3], in units of pixels from 0 to 255, RGB.
        input_scale: Factors of red, green and blue; None where nothing is scaled, as in the paper.
        resize: Shorter side of the resized picture, in pixels.
        crop: Height and width of the crop.
        interpolation: `antialias`, `repeat`, `pillow-bilinear` or `pillow-bicubic`; see
            `resnet_jax.training.stored_preprocessing`.
    """

    image_mean: Float[np.ndarray, "..."]
    input_scale: tuple[float, ...] | None
    resize: int
    crop: int
    interpolation: str = ANTIALIAS

    def fit(self, picture: Picture, out: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes a picture of any size, resized and cropped, to `out`, uint8[crop, crop, 3].

        Raises:
            CorruptImageError: A file is no image, or not a whole one.
            OSError: A file cannot be read.
        """
        if self.interpolation in PILLOW_FILTERS:
            out[:] = self._fit_by_pillow(picture)
            return
        view = CenterCrop(self.crop, self.resize)
        if isinstance(picture, str | os.PathLike):
            encoded = as_path(picture).read_bytes()
            width, height = image_size(encoded)
            if not self._repeats(width, height):
                decode_crops(encoded, [view.box(width, height)], (width, height), [out])
                return
            pixels = decode(encoded)
        else:
            pixels = read_pixels(picture)
            height, width = pixels.shape[:2]
        if self._repeats(width, height):
            out[:] = pixels.repeat(self.crop // width, 0).repeat(self.crop // width, 1)
        else:
            crop_pixels(pixels, view.box(width, height), out)

    def _fit_by_pillow(self, picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the result of torchvision's Resize and CenterCrop for a PIL image."""
        import PIL.Image  # Here, since few need it.

        if isinstance(picture, _pil_image()):
            image = picture.convert("RGB")
        elif isinstance(picture, str | os.PathLike):
            image = PIL.Image.fromarray(decode_by_pillow(as_path(picture).read_bytes()))
        else:
            image = PIL.Image.fromarray(np.asarray(picture)).convert("RGB")
        width, height = image.size
        if width <= height:
            size = (self.resize, int(self.resize * height / width))
        else:
            size = (int(self.resize * width / height), self.resize)
        image = image.resize(size, PIL.Image.Resampling(PILLOW_FILTERS[self.interpolation]))
        left, top = round((size[0] - self.crop) / 2), round((size[1] - self.crop) / 2)
        return np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))

    def _repeats(self, width: int, height: int) -> bool:
        return self.interpolation == REPEAT and width == height and self.crop % width == 0

    @classmethod
    def from_fractions(
        cls,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        resize: int,
        crop: int,
        interpolation: str = ANTIALIAS,
    ) -> "Preprocessing":
        """Returns the preprocessing of a network that takes (pixels / 255 - mean) / std.

        Raises:
            ValueError: They are not three numbers each, or the sizes are none of a picture.
        """
        if not (len(mean) == len(std) == 3 and np.isfinite([*mean, *std]).all() and min(std) > 0):
            raise ValueError(
                f"mean {mean} and deviation {std}; they must be three numbers each, the second above 0"
            )
        if not 0 < crop <= resize <= LARGEST:
            raise ValueError(
                f"a crop of {crop} pixels from a shorter side of {resize}; they must be at most {LARGEST} "
                "and rise"
            )
        return cls(
            np.asarray([255 * value for value in mean], np.float32),
            tuple(1 / (255 * value) for value in std),
            resize,
            crop,
            interpolation,
        )

    def to_json(self) -> JsonObject:
        """Returns the record that stands beside exported weights."""
        return {
            "channels": "RGB",
            "pixels": [0, 255],
            "resize_shorter_side": self.resize,
            "centre_crop": self.crop,
            "mean": self.image_mean.astype(float).tolist(),
            "scale": None if self.input_scale is None else list(self.input_scale),
        } | ({"interpolation": self.interpolation} if self.interpolation in PILLOW_FILTERS else {})

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Preprocessing":
        """Returns what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is not such a record.
        """
        mean = np.asarray(record["mean"], np.float32)
        crop, resize = int(record["centre_crop"]), int(record["resize_shorter_side"])
        if mean.shape not in ((3,), (crop, crop, 3)) or not 0 < crop <= resize <= LARGEST:
            raise ValueError(f"mean of shape {list(mean.shape)}, crop {crop} of {resize}")
        scale = record["scale"]
        interpolation = str(record.get("interpolation", ANTIALIAS))
        if interpolation not in (ANTIALIAS, REPEAT, *PILLOW_FILTERS):
            raise ValueError(f"interpolation {interpolation!r}")
        return cls(mean, None if scale is None else tuple(map(float, scale)), resize, crop, interpolation)


def _pil_image() -> "type[PIL.Image.Image]":
    import PIL.Image  # Here, since few need it.

    return PIL.Image.Image
