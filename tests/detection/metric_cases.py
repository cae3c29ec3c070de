"""Cases for the metrics: random ones, from a seed alone, and the hand-made ones."""

from pathlib import Path

import numpy as np

from resnet_jax.detection.rows import Found, Truth
from tests.detection.metric_edges import EDGES

CASES, CLASSES = 8, 4
COCO_GOLDEN = Path(__file__).parents[1] / "golden" / "detection" / "coco.npz"


def case(number: int) -> tuple[Found, Truth]:
    """Returns detections and objects of twelve images; class 3 has none in the even cases.

    Case 6 has detections alone in some images, and case 7 more than 100 of a class in one image.
    """
    random = np.random.RandomState(number)
    images, count = 12, 40
    corner = random.randint(0, 120, (count, 2)).astype(float)
    box = np.concatenate([corner, corner + random.randint(4, 130, (count, 2))], 1)
    sides = box[:, 2:] - box[:, :2]
    truth = Truth(
        images=images,
        example=np.sort(random.randint(0, images // 2 if number == 6 else images, count)),
        box=box,
        label=random.randint(0, CLASSES - 1 if number % 2 == 0 else CLASSES, count),
        difficult=random.uniform(size=count) < 0.15,
        crowd=random.uniform(size=count) < 0.15,
        area=np.round(sides.prod(1) * random.uniform(0.5, 1, count)),
    )
    near = random.randint(0, count, 300 if number == 7 else 90)
    moved = box[near] + random.randint(-6, 7, (len(near), 4)) * random.randint(0, 2, (len(near), 1))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    example = truth.example[near]
    if number == 7:
        example[:150] = 3
    wrong = random.uniform(size=len(near)) < 0.15
    label = np.where(wrong, random.randint(0, CLASSES, len(near)), truth.label[near])
    if number == 7:
        label[:150] = 1
    order = np.argsort(example, kind="stable")
    score = np.round(random.uniform(0, 1, len(near)), 1 if number % 3 == 0 else 3)  # With many ties, or few.
    return Found(example[order], moved[order].astype(float), score[order], label[order]), truth


ALL_CASES = {f"case{number}": case(number) for number in range(CASES)} | EDGES
"""Every case by its name in the golden file."""
