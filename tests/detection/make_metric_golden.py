"""Writes tests/golden/detection/coco.npz with pycocotools alone.

Python -m tests.detection.make_metric_golden, in an environment with pycocotools.
"""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from resnet_jax.detection.rows import Found, Truth
from tests.detection.metric_cases import ALL_CASES, CLASSES, COCO_GOLDEN


def evaluate(found: Found, truth: Truth) -> np.ndarray:
    """Returns the precisions [10 overlaps, classes, 4 areas] of a case; NaN where there are no objects."""
    objects = [
        {
            "id": row + 1, "image_id": int(truth.example[row]) + 1, "category_id": int(truth.label[row]) + 1,
            "bbox": [*truth.box[row, :2], *(truth.box[row, 2:] - truth.box[row, :2])],
            "area": float(truth.area[row]), "iscrowd": int(truth.crowd[row]),
            "ignore": int(truth.difficult[row]),
        }
        for row in range(len(truth.label))
    ]  # fmt: skip
    data = COCO()
    data.dataset = {
        "images": [{"id": image + 1} for image in range(truth.images)],
        "categories": [{"id": label + 1} for label in range(CLASSES)],
        "annotations": objects,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        sides = found.box[:, 2:] - found.box[:, :2]
        rows = np.column_stack([found.example + 1, found.box[:, :2], sides, found.score, found.label + 1])
        results = data.loadRes(rows) if len(rows) else COCO()
        run = COCOeval(data, results, "bbox")
        run.params.imgIds = list(range(1, truth.images + 1))
        run.params.catIds = list(range(1, CLASSES + 1))
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][..., -1]  # Overlaps, recalls, classes, areas; at most 100 detections.
    precision = np.where(precision < 0, np.nan, precision)
    return precision.mean(1)


if __name__ == "__main__":
    np.savez_compressed(COCO_GOLDEN, **{name: evaluate(*rows) for name, rows in ALL_CASES.items()})
