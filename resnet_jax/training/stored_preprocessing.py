"""How a picture of any size becomes an image of the network, as a checkpoint records it."""

from resnet_jax.data.choices import DIGITS
from resnet_jax.files import JsonObject
from resnet_jax.training.config import Config

RESIZE, CROP, INTERPOLATION = "resize_shorter_side", "center_crop", "interpolation"  # Keys.

ANTIALIAS, REPEAT = "antialias", "repeat"
"""Interpolations. `antialias` averages areas if a picture shrinks by more than 1.5, else it is linear.

`repeat` repeats the pixels of a square picture if that gives the size of the crop, as was done with the
embedded digits, and else is the same.
"""


PILLOW_BILINEAR, PILLOW_BICUBIC = "pillow-bilinear", "pillow-bicubic"
"""Interpolations that are Pillow's to the bit, as PyTorch's and timm's pipelines have it; slower."""


def evaluation_preprocessing(config: Config, side: int) -> JsonObject:
    """Returns the record that a checkpoint stores: as in evaluation, or as the config says otherwise.

    The image mean is not part of it, since the state holds that, nor are the scales of channels, an option of
    the model.

    Args:
        config: Resolved config of the run.
        side: Height and width of the run's images, in pixels.

    Example:
        >>> evaluation_preprocessing(config, 224)
        {'resize_shorter_side': 256, 'center_crop': 224, 'interpolation': 'antialias'}
    """
    wanted, data = config.inference, config.data
    crop = wanted.crop or side
    resize = wanted.resize or (max(crop, data.test_scale) if data.image_size else crop)
    default = REPEAT if data.source == DIGITS else ANTIALIAS
    return {RESIZE: resize, CROP: crop, INTERPOLATION: wanted.interpolation or default}
