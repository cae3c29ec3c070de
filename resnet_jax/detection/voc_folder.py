"""Folders in VOC's layout: Annotations/NAME.xml, JPEGImages/NAME.jpg, ImageSets/Main/SPLIT.txt."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from resnet_jax.data.data_error import DataError
from resnet_jax.detection.annotated_images import VOC_CLASSES, AnnotatedImages, Checker, ObjectRow
from resnet_jax.files import is_junk

CLASSES_FILE = "classes.txt"
"""Names of the classes, a line each, where they are not those of VOC."""


def is_voc(root: Path) -> bool:
    """Returns whether a folder is in VOC's layout, or holds years in it (VOC2007, VOC2012)."""
    return bool(_years(root))


def _years(root: Path) -> dict[str, Path]:
    """Returns the folders with annotations, by year; the folder itself has the year ""."""
    if (root / "Annotations").is_dir():
        return {"": root}
    return {
        path.name.removeprefix("VOC"): path
        for path in sorted(root.glob("VOC*"))
        if (path / "Annotations").is_dir()
    }


def open_voc_folder(root: Path, split: str) -> AnnotatedImages:
    """Opens a split of a folder in VOC's layout.

    Args:
        root: VOCdevkit, one of its years, or a folder like it.
        split: Name of a file in ImageSets/Main, with the year before a colon where there are several; several
            splits are joined by "+": "2007:trainval+2012:trainval".

    Raises:
        DataError: There is no such split, or a file of it is missing or not what it should be.
    """
    years, checker = _years(root), Checker()
    classes = _classes(root, years)
    images: list[Path] = []
    sizes, annotations = [], []
    for part in split.split("+"):
        year, _, name = part.rpartition(":")
        if year not in years:
            raise DataError(
                f"{root} has no {part!r}; write YEAR:SPLIT with a year of "
                f"{', '.join(map(repr, years))}, such as "
                f"{next(iter(years))}:trainval"
            )
        for stem in _members(years[year], name):
            path = years[year] / "Annotations" / f"{stem}.xml"
            size, rows = _read(path, classes)
            images.append(_image_of(years[year], stem, path))
            sizes.append(size)
            annotations.append(checker.annotation(str(path), size, rows))
    return AnnotatedImages(
        [str(path) for path in images],
        sizes,
        annotations,
        classes,
        lambda index: images[index].read_bytes(),
        dict(checker.dropped),
    )


def _classes(root: Path, years: dict[str, Path]) -> Sequence[str]:
    for folder in (root, *years.values()):
        if (folder / CLASSES_FILE).is_file():
            lines = (folder / CLASSES_FILE).read_text(encoding="utf-8").splitlines()
            return [line.strip() for line in lines if line.strip()]
    return VOC_CLASSES


def _members(folder: Path, split: str) -> list[str]:
    """Returns the names of the images of a split."""
    lists = folder / "ImageSets" / "Main"
    path = lists / f"{split}.txt"
    if not path.is_file():
        known = sorted(
            file.stem for file in lists.glob("*.txt") if "_" not in file.stem and not is_junk(file.name)
        )
        has = f"it has {', '.join(known)}" if known else "there are no lists"
        raise DataError(f"{folder} has no split {split!r} in ImageSets/Main; {has}")
    members = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not members:
        raise DataError(f"{path} lists no images")
    return members


def _image_of(folder: Path, stem: str, annotation: Path) -> Path:
    for suffix in (".jpg", ".jpeg", ".png", ".JPG"):
        path = folder / "JPEGImages" / f"{stem}{suffix}"
        if path.is_file():
            return path
    raise DataError(f"there is no image for {annotation}: {folder / 'JPEGImages' / stem}.jpg is missing")


def _read(path: Path, classes: Sequence[str]) -> tuple[tuple[int, int], list[ObjectRow]]:
    """Returns height and width of an image, and a row for each of its objects, with edges in pixels."""
    try:
        tree = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; restore it, or take it off the list"
        ) from error
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is no XML ({error}); restore it, or take it off the list") from error
    rows: list[ObjectRow] = []
    try:
        size = int(tree.findtext("size/height") or ""), int(tree.findtext("size/width") or "")
        for one in tree.iter("object"):
            name = (one.findtext("name") or "").strip()
            if name not in classes:
                raise DataError(
                    f"{path} has an object of class {name!r}; the classes are {', '.join(classes)}. "
                    "Write your own "
                    f"into {CLASSES_FILE} beside Annotations, a line each"
                )
            texts = [one.findtext(f"bndbox/{edge}") or "" for edge in ("xmin", "ymin", "xmax", "ymax")]
            left, top, right, bottom = map(float, texts)
            difficult = (one.findtext("difficult") or "0").strip() == "1"
            # Pixels are counted from 1, and the last one belongs to the box.
            rows.append(([left - 1, top - 1, right, bottom], classes.index(name), False, difficult, -1.0))
    except ValueError as error:
        raise DataError(
            f"{path} is no annotation of VOC ({error}); it needs a size and boxes in numbers"
        ) from error
    return size, rows
