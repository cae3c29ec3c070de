"""Tiny folders in the layouts of VOC and COCO, with real image files."""

import json
from pathlib import Path

import numpy as np
import PIL.Image

VocObject = tuple[str, tuple[float, ...], int]
VOC_OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>"
    "<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)


def save_image(path: Path, width: int, height: int, mode: str = "RGB") -> None:
    """Writes a JPEG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    pixels = np.random.RandomState(width).randint(0, 256, (height, width, channels)).astype(np.uint8)
    PIL.Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode).save(path, quality=90)


def voc_image(
    root: Path,
    stem: str,
    objects: list[tuple[str, tuple[float, ...], int]],
    *,
    size: tuple[int, int] = (60, 40),
) -> None:
    """Writes an image and its annotation; boxes are VOC's, counted from 1."""
    save_image(root / "JPEGImages" / f"{stem}.jpg", *size, mode="L" if stem.endswith("gray") else "RGB")
    rows = "".join(
        VOC_OBJECT.format(*box, name=name, difficult=difficult) for name, box, difficult in objects
    )
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / f"{stem}.xml").write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{rows}</annotation>"
    )


def voc_folder(root: Path) -> Path:
    """Writes four images in the splits train and val."""
    voc_image(root, "a", [("dog", (1, 1, 60, 40), 0), ("cat", (11, 11, 20, 30), 1)])
    voc_image(root, "b_gray", [("person", (5, 6, 30, 35), 0)], size=(40, 60))
    voc_image(root, "c", [])
    bad = [("dog", (70, 1, 80, 20), 0), ("dog", (11, 5, 10, 20), 0), ("dog", (50, 30, 90, 60), 0)]
    voc_image(root, "d", bad)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb_gray\nc\nd\n")
    (lists / "val.txt").write_text("a\n")
    return root


def coco_folder(root: Path, *, boxes: int = 2) -> Path:
    """Writes two images in the split train2017; the categories have numbers with gaps."""
    save_image(root / "train2017" / "1.jpg", 80, 50)
    save_image(root / "train2017" / "2.jpg", 50, 80, mode="CMYK")
    content = {
        "images": [
            {"id": 10, "file_name": "1.jpg", "width": 80, "height": 50},
            {"id": 20, "file_name": "2.jpg", "width": 50, "height": 80},
        ],
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 1, "name": "person"},
            {"id": 13, "name": "stop sign"},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 10,
                "category_id": 90,
                "bbox": [10, 5, 20, 30],
                "area": 321.5,
                "iscrowd": 0,
            },
            *(
                {"id": 2 + n, "image_id": 20, "category_id": 13, "bbox": [0, 0, 50, 60], "iscrowd": 1}
                for n in range(boxes - 1)
            ),
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return root
