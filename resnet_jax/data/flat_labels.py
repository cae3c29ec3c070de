"""Splits whose images lie in one folder and whose classes are in a file, as in ImageNet's validation set.

The file may be Kaggle's `LOC_val_solution.csv`, the ground truth of ImageNet's development kit, a list of
WordNet ids by image (`*_synset_labels.txt`), or Tiny-ImageNet's `val_annotations.txt`. The development kit is
read from a disk alone.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence

from etils import epath

from resnet_jax.data.data_error import DataError
from resnet_jax.data.tars import GROUND_TRUTH, KITS, validation_classes
from resnet_jax.files import as_path, read_bytes
from resnet_jax.object_storage import is_url

KAGGLE, TINY = "LOC_{split}_solution.csv", "{split}_annotations.txt"
_LISTS = ("imagenet_2012_validation_synset_labels.txt", "synset_labels.txt")
_LEVELS = 3
"""Folders above a split that are searched for its labels; Kaggle's lie beside ILSVRC/Data/CLS-LOC."""


def find_labels(split_folder: str, images: Sequence[str]) -> tuple[dict[str, str], str] | None:
    """Returns the class of every image of a flat split by its path, and the file that says so.

    Args:
        split_folder: Folder of the split.
        images: epath.Paths of its images relative to it, sorted.

    Returns:
        None if there is no file with labels.

    Raises:
        DataError: The file does not name every image, or not once.
    """
    folder = as_path(split_folder)
    aliases = {"validation": "val"}
    split = aliases.get(folder.name, folder.name)
    if (tiny := folder / TINY.format(split=split)).is_file():
        return _named(images, _tiny(tiny), tiny), str(tiny)
    above = folder.parents if is_url(folder) else folder.absolute().parents
    places = [folder, *list(above)[: _LEVELS + 1]]
    for place in places:
        if (kaggle := place / KAGGLE.format(split=split)).is_file():
            return _named(images, _kaggle(kaggle), kaggle), str(kaggle)
    if split != "val":
        return None
    for place in places:
        for name in _LISTS:
            if (file := place / name).is_file():
                return _in_order(images, _text(file).split(), file), str(file)
        for kit in () if is_url(place) else _kits(place):
            return _in_order(images, validation_classes(str(kit)), kit), str(kit)
    return None


def _kits(place: epath.Path) -> Sequence[epath.Path]:
    """Returns the development kits in a folder: a tar, or what is unpacked of it."""
    folders = [place / "ILSVRC2012_devkit_t12", place]
    unpacked = [folder for folder in folders if (folder / "data" / GROUND_TRUTH).is_file()]
    return [*unpacked, *(place / name for name in KITS if (place / name).is_file())]


def _text(file: epath.Path) -> str:
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _tiny(file: epath.Path) -> dict[str, str]:
    rows = [line.split("\t") for line in _text(file).splitlines() if line.strip()]
    return {row[0]: row[1] for row in rows if len(row) > 1}


def _kaggle(file: epath.Path) -> dict[str, str]:
    try:
        lines = io.StringIO(_text(file), newline="")
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(lines)}
    except (KeyError, IndexError, TypeError, AttributeError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} cannot be read as Kaggle's solution, with the columns ImageId and PredictionString; "
            "download it again"
        ) from error


def _named(images: Sequence[str], classes: Mapping[str, str], file: epath.Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for image in images:
        name = os.path.basename(image)
        label = classes.get(name) or classes.get(os.path.splitext(name)[0])
        if label is None:
            raise DataError(f"{file} has no class for {image}; add it, or remove the image")
        found[image] = label
    return found


def _in_order(images: Sequence[str], classes: Sequence[str], file: epath.Path) -> dict[str, str]:
    """Gives the classes to the images in the order of their names, as the development kit counts them."""
    if len(images) != len(classes):
        raise DataError(
            f"{file} has {len(classes)} labels, and the split {len(images)} images; they must be as many, in "
            "the order of the images' names"
        )
    return dict(zip(sorted(images, key=os.path.basename), classes, strict=True))
