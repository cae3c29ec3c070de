"""TFDS's sets of images with objects, `voc/*` and `coco/*`."""

from typing import Any

import numpy as np

from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.data.decode import image_size
from resnet_jax.data.tfds_sets import open_tfds_objects
from resnet_jax.detection.annotated_images import AnnotatedImages, Checker


def open_tfds_split(name: str, split: str, data_dir: str | None) -> AnnotatedImages:
    """Opens a split; all its records are looked at once, for the sizes and the objects.

    Raises:
        DataError: There is no such set or split, or a record is damaged.
    """
    records, classes = open_tfds_objects(name, split, data_dir)
    of_voc, checker = name.startswith("voc"), Checker()
    names, sizes, annotations = [], [], []
    for index in range(len(records)):
        record = records[index]
        names.append(f"example {index} of {name}, split {split}")
        try:
            width, height = image_size(record["image"])
        except CorruptImageError as error:
            raise DataError(f"{names[-1]}: {error}; prepare the set again") from error
        sizes.append((height, width))
        rows = _rows(record["objects"], (height, width), of_voc=of_voc)
        annotations.append(checker.annotation(names[-1], (height, width), rows))
    return AnnotatedImages(
        names, sizes, annotations, classes, lambda index: records[index]["image"], dict(checker.dropped)
    )


def _rows(objects: Any, size: tuple[int, int], *, of_voc: bool) -> list[Any]:
    """Returns a row for each object, with edges in pixels.

    TFDS stores boxes as shares of the sides. VOC counts pixels from 1, and the last one belongs to the box.
    """
    height, width = size
    boxes = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)
    edges = boxes[:, [1, 0, 3, 2]] * np.array([width, height, width, height])
    if of_voc:
        edges = np.round(edges, 3) - np.array([1, 1, 0, 0])
    count = len(edges)
    labels = np.asarray(objects["label"]).reshape(-1)
    crowd = np.asarray(objects.get("is_crowd", np.zeros(count, bool))).reshape(-1)
    difficult = np.asarray(objects.get("is_difficult", np.zeros(count, bool))).reshape(-1)
    area = np.asarray(objects.get("area", np.full(count, -1.0)), np.float64).reshape(-1)
    return [
        (edges[row].tolist(), int(labels[row]), bool(crowd[row]), bool(difficult[row]), float(area[row]))
        for row in range(count)
    ]
