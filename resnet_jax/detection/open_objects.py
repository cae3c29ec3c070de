"""Opens a split of a data set for detection by the set's name."""

from resnet_jax.data.data_error import DataError
from resnet_jax.detection.object_source import ObjectSource, open_scenes

SCENES_NAME = "scenes"
"""The embedded set."""


def open_objects(name: str, split: str, *, data_dir: str | None = None) -> ObjectSource:
    """Opens a split of images with objects.

    Args:
        name: "scenes", the embedded set.
        split: Name of the split.
        data_dir: Directory of TFDS datasets.

    Raises:
        DataError: There is no such set or split.
    """
    del data_dir
    if name == SCENES_NAME:
        return open_scenes(split)
    raise DataError(f"unknown data set {name!r} for detection; allowed are {SCENES_NAME}")
