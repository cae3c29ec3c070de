"""What a network expects of its images: their size, and the mean and scale of their pixels."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from resnet_jax.data.crops import CenterCrop
from resnet_jax.files import JsonObject
from resnet_jax.inference.image_input import Picture, fit
from resnet_jax.training.stored_preprocessing import ANTIALIAS, REPEAT

LARGEST = 4096
"""Pixels of a side."""


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
        interpolation: `antialias` or `repeat`, see `resnet_jax.training.stored_preprocessing`.
    """

    image_mean: Float[np.ndarray, "..."]
    input_scale: tuple[float, ...] | None
    resize: int
    crop: int
    interpolation: str = ANTIALIAS

    def fit(self, picture: Picture, out: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes a picture of any size, resized and cropped, to `out`, uint8[crop, crop, 3]."""
        fit(picture, CenterCrop(self.crop, self.resize), out, repeat=self.interpolation == REPEAT)

    @classmethod
    def from_fractions(
        cls, mean: Sequence[float], std: Sequence[float], *, resize: int, crop: int
    ) -> "Preprocessing":
        """Returns that of a net which takes (pixels / 255 - mean) / std.

        Raises:
            ValueError: They are not three numbers each, or the sizes are none of a picture.
        """
        sound = len(mean) == len(std) == 3 and np.isfinite([*mean, *std]).all() and min(std) > 0
        if not sound:
            raise ValueError(
                f"mean {mean} and deviation {std}; they must be three numbers each, the second above 0"
            )
        if not 0 < crop <= resize <= LARGEST:
            raise ValueError(
                f"a crop of {crop} pixels from a shorter side of {resize}; they must be at most {LARGEST} "
                "and rise"
            )
        scale = tuple(1 / (255 * value) for value in std)
        return cls(np.asarray([255 * value for value in mean], np.float32), scale, resize, crop)

    def to_json(self) -> JsonObject:
        """Returns the record that stands beside exported weights."""
        return {
            "channels": "RGB",
            "pixels": [0, 255],
            "resize_shorter_side": self.resize,
            "centre_crop": self.crop,
            "mean": self.image_mean.astype(float).tolist(),
            "scale": None if self.input_scale is None else list(self.input_scale),
        }

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
        return cls(mean, None if scale is None else tuple(map(float, scale)), resize, crop)
