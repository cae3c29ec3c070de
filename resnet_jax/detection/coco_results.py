"""Detections as JSON in COCO's format of results."""

from collections.abc import Sequence
from pathlib import Path

from resnet_jax.files import JsonObject, write_json
from resnet_jax.inference.detected import Detected

RESULTS, IMAGES = "detections.json", "images.json"
"""Files of `write_detections`."""


def coco_results(found: Sequence[Detected]) -> list[JsonObject]:
    """Returns a record for every detection: `image_id`, `category_id`, `bbox` and `score`.

    `image_id` is the place of the image, `category_id` the label from 0, and `bbox` left, top, width and
    height in pixels.
    """
    return [
        {
            "image_id": number,
            "category_id": int(label),
            "bbox": [*map(float, box[:2]), *map(float, box[2:] - box[:2])],
            "score": float(score),
        }
        for number, one in enumerate(found)
        for label, box, score in zip(one.labels, one.boxes, one.scores, strict=True)
    ]


def write_detections(folder: Path, files: Sequence[str], found: Sequence[Detected]) -> None:
    """Writes the detections into a folder, and which image has which number."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULTS, coco_results(found))
    write_json(folder / IMAGES, [{"id": number, "file_name": file} for number, file in enumerate(files)])
