"""Hand-made cases for the metrics: each is one rule that random boxes seldom reach."""

from typing import NamedTuple

import numpy as np

from resnet_jax.detection.rows import Found, Truth


class Box(NamedTuple):
    """A box of class 0; `crowd` and `difficult` are for objects."""

    left: float
    top: float
    right: float
    bottom: float
    image: int = 0
    crowd: bool = False
    difficult: bool = False


def edge_case(
    objects: list[Box], found: list[Box], images: int = 1, scores: np.ndarray | None = None
) -> tuple[Found, Truth]:
    """Returns detections and objects of class 0.

    Args:
        objects: Objects; their areas are those of the boxes.
        found: Detections.
        images: Number of images.
        scores: Scores of the detections, float[n]. They fall in the order of the list by default.
    """
    corners = np.array([box[:4] for box in objects], float).reshape(-1, 4)
    truth = Truth(
        images=images,
        example=np.array([box.image for box in objects], int),
        box=corners,
        label=np.zeros(len(objects), int),
        difficult=np.array([box.difficult for box in objects], bool),
        crowd=np.array([box.crowd for box in objects], bool),
        area=(corners[:, 2:] - corners[:, :2]).prod(1),
    )
    falling = np.linspace(0.9, 0.1, len(found)) if scores is None else scores
    rows = np.array([box[:4] for box in found], float).reshape(-1, 4)
    return Found(np.array([box.image for box in found], int), rows, falling, np.zeros(len(found), int)), truth


ROW = [Box(20.0 * place, 0, 20.0 * place + 10, 10) for place in range(110)]
"""Boxes of one image that do not touch."""

EDGES = {
    # The first detection overlaps both objects by 9/11. COCO gives it the last one, the kit the first one.
    "equal overlaps": edge_case(
        [Box(0, 0, 10, 10), Box(2, 0, 12, 10)], [Box(1, 0, 11, 10), Box(0, 0, 10, 10)]
    ),
    "equal overlaps, one is difficult": edge_case(
        [Box(0, 0, 10, 10, difficult=True), Box(2, 0, 12, 10)], [Box(1, 0, 11, 10), Box(40, 0, 50, 10)]
    ),
    # COCO gives the second detection the other object (8/12); in the kit it is a duplicate.
    "the best object is taken": edge_case(
        [Box(0, 0, 10, 10), Box(2, 0, 12, 10)], [Box(0, 0, 10, 10), Box(0, 0, 10, 10)]
    ),
    # The detection lies in the crowd entirely and overlaps the object by 10/12.
    "an object within a crowd": edge_case(
        [Box(0, 0, 100, 100, crowd=True), Box(10, 10, 20, 22)], [Box(10, 10, 20, 20), Box(60, 60, 70, 70)]
    ),
    # The second object is too large to be small, and the detection overlaps it more.
    "a small object below a medium one": edge_case(
        [Box(0, 0, 32, 31), Box(0, 0, 32, 36), Box(60, 0, 80, 20)],
        [Box(0, 0, 32, 35), Box(0, 0, 32, 36), Box(60, 0, 80, 20)],
    ),
    "a crowd alone": edge_case([Box(0, 0, 100, 100, crowd=True)], [Box(0, 0, 10, 10), Box(200, 0, 210, 10)]),
    "many in a crowd": edge_case(
        [Box(0, 0, 300, 10, crowd=True), Box(0, 50, 10, 60)],
        [*ROW[:9], Box(295, 0, 305, 10), Box(296, 0, 306, 10), Box(0, 50, 10, 60)],
    ),
    # Areas of 32² and 96² belong to both ranges, for objects and for detections of nothing.
    "areas at the ends": edge_case(
        [Box(0, 0, 32, 32), Box(100, 100, 196, 196)],
        [Box(300, 0, 332, 32), Box(300, 100, 396, 196), Box(0, 0, 32, 32), Box(100, 100, 196, 196)],
    ),
    # COCO counts an overlap of 1/2 at 0.5 and of 3/4 at 0.75; the kit wants more than 1/2.
    "overlaps at the thresholds": edge_case(
        [Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(40, 0, 50, 10)],
        [Box(0, 0, 10, 5), Box(20, 0, 30, 7.5), Box(40, 0, 50, 10)],
    ),
    # Of equal scores the first 100 count: box 99 is found, box 100 is not.
    "more than a hundred": edge_case([*ROW[98:102]], ROW, scores=np.full(len(ROW), 0.5)),
    "equal scores in several images": edge_case(
        [Box(0, 0, 10, 10, image) for image in range(3)],
        [Box(0, 0, 10, 10, 0), Box(50, 0, 60, 10, 1), Box(0, 0, 10, 10, 1), Box(50, 0, 60, 10, 2)],
        images=3,
        scores=np.full(4, 0.5),
    ),
    "images without objects or detections": edge_case(
        [Box(0, 0, 10, 10, 1), Box(0, 0, 10, 10, 3)], [Box(0, 0, 10, 10, 0), Box(0, 0, 10, 10, 3)], images=5
    ),
    "no detections": edge_case([Box(0, 0, 10, 10)], []),
    "a difficult object, twice": edge_case(
        [Box(0, 0, 10, 10, difficult=True), Box(20, 0, 30, 10)],
        [Box(0, 0, 10, 10), Box(0, 0, 10, 10), Box(20, 0, 30, 10)],
    ),
    # The recall 35/100 stays below linspace(0, 1, 101)[35], which is 0.35000000000000003; so do 41 and 47.
    "recalls just below a point of the curve": edge_case(
        ROW[:100], [*ROW[:29], *[Box(0, 50, 10, 60)] * 9, *ROW[29:58]]
    ),
}
