"""Opens a split of a data set for detection by the set's name."""

from pathlib import Path

from resnet_jax.data.choices import SCENES_NAME
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import is_path
from resnet_jax.detection.coco_folder import is_coco, open_coco_folder
from resnet_jax.detection.object_source import ObjectSource, open_scenes
from resnet_jax.detection.voc_folder import is_voc, open_voc_folder
from resnet_jax.files import expand_home
from resnet_jax.object_storage import is_url


def open_objects(name: str, split: str, *, data_dir: str | None = None) -> ObjectSource:
    """Opens a split of images with objects.

    Args:
        name: "scenes", the embedded set; a folder in the layout of VOC or COCO; or a set of TFDS with
            objects, such as "voc/2007" or "coco/2017".
        split: Name of the split; several are joined by "+".
        data_dir: Directory of TFDS datasets.

    Raises:
        DataError: There is no such set or split, or it is not whole.
    """
    if name == SCENES_NAME:
        return open_scenes(split)
    if is_url(name):
        raise DataError(
            f"{name} is in object storage, which a detector does not read from; copy it to a disk"
        )
    if not is_path(name):
        from resnet_jax.detection.tfds_objects import open_tfds_split  # Here: others need not wait for TFDS.

        return open_tfds_split(name, split, data_dir)
    root = Path(expand_home(name))
    if not root.is_dir():
        raise DataError(f"there is no folder {name}; config.data.source is one in the layout of VOC or COCO")
    if is_voc(root):
        return open_voc_folder(root, split)
    if is_coco(root):
        return open_coco_folder(root, split)
    raise DataError(
        f"{name} has neither Annotations (the layout of VOC) nor annotations/instances_SPLIT.json (that "
        "of COCO)"
    )
