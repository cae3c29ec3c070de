"""Folders in COCO's layout: annotations/instances_SPLIT.json and the images in SPLIT/."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_jax.data.data_error import DataError
from resnet_jax.detection.annotated_images import AnnotatedImages, Checker, ObjectRow


def is_coco(root: Path) -> bool:
    """Returns whether a folder is in COCO's layout, or has a _annotations.coco.json for every split."""
    return any(root.glob("annotations/*.json")) or any(root.glob("*/_annotations.coco.json"))


def open_coco_folder(root: Path, split: str) -> AnnotatedImages:
    """Opens a split of a folder in COCO's layout; several are joined by "+": "train2014+valminusminival2014".

    Raises:
        DataError: There is no such split, or a file of it is missing or not what it should be.
    """
    checker, classes = Checker(), None
    images: list[Path] = []
    sizes, annotations = [], []
    for part in split.split("+"):
        file, folder = _files(root, part)
        names, of_part = _read(file)
        if classes is not None and names != classes:
            raise DataError(f"{file} has other categories than the splits before it; they must be the same")
        classes = names
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        for name, size, rows in of_part:
            if Path(name).name not in present and not (folder / name).is_file():
                raise DataError(f"{file} names the image {name}, which is not in {folder}")
            images.append(folder / name)
            sizes.append(size)
            annotations.append(checker.annotation(f"{file}, image {name}", size, rows))
    return AnnotatedImages(
        [str(path) for path in images],
        sizes,
        annotations,
        classes or (),
        lambda index: images[index].read_bytes(),
        dict(checker.dropped),
    )


def _files(root: Path, split: str) -> tuple[Path, Path]:
    """Returns the annotations and the folder of images of a split."""
    own = root / split / "_annotations.coco.json"
    if own.is_file():
        return own, root / split
    for name in (f"instances_{split}.json", f"{split}.json"):
        if (root / "annotations" / name).is_file():
            folder = root / split
            return root / "annotations" / name, folder if folder.is_dir() else root / "images"
    known = sorted(path.stem.removeprefix("instances_") for path in root.glob("annotations/*.json"))
    known += sorted(path.parent.name for path in root.glob("*/_annotations.coco.json"))
    raise DataError(f"{root} has no split {split!r}; it has {', '.join(known)}")


def _read(file: Path) -> tuple[Sequence[str], list[tuple[str, tuple[int, int], list[ObjectRow]]]]:
    """Returns the names of the classes, and of every image its name, height and width, and objects.

    Categories have numbers with gaps; labels are their places among the numbers, rising.
    """
    try:
        content: Any = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file} is no JSON ({error}); restore it") from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        raise DataError(f"{file} is not COCO's: it needs the keys images, annotations and categories")
    try:
        categories = sorted(content["categories"], key=lambda one: one["id"])
        labels = {one["id"]: label for label, one in enumerate(categories)}
        rows: dict[int, list[ObjectRow]] = {one["id"]: [] for one in content["images"]}
        for one in content["annotations"]:
            if one["category_id"] not in labels:
                raise DataError(
                    f"{file} has an object of category {one['category_id']}, which is not among its "
                    "categories"
                )
            if one["image_id"] not in rows:
                raise DataError(
                    f"{file} has an object in image {one['image_id']}, which is not among its images"
                )
            left, top, width, height = map(float, one["bbox"])
            area = float(one.get("area", -1.0))
            edges = [left, top, left + width, top + height]
            rows[one["image_id"]].append(
                (edges, labels[one["category_id"]], bool(one.get("iscrowd", 0)), False, area)
            )
        found = [
            (str(one["file_name"]), (int(one["height"]), int(one["width"])), rows[one["id"]])
            for one in content["images"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is not COCO's: {type(error).__name__} {error}") from error
    return [str(one["name"]) for one in categories], found
