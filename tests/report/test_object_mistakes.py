"""Misses and false alarms of a detector in the report."""

import numpy as np

from resnet_jax.detection.rows import Found, Truth
from resnet_jax.report.object_figures import draw_boxes, draw_object_mistakes
from resnet_jax.report.object_mistakes import ObjectMistakes, ShownObject, judge
from tests.report.reading import read

PIXELS = np.full((40, 60, 3), 128, np.uint8)


def test_every_detection_is_of_one_kind() -> None:
    square = np.array([0.0, 0, 10, 10])
    truth = Truth(
        images=3,
        example=np.array([0, 0, 1]),
        box=np.stack([square, square + 20, square]),
        label=np.array([0, 1, 0]),
        difficult=np.array([False, False, True]),
        crowd=np.zeros(3, bool),
        area=np.full(3, 100.0),
    )
    boxes = [square, square + 1, square + 20, square + 4, square + 50, square, square]
    found = Found(
        example=np.array([0, 0, 0, 0, 0, 1, 2]),
        box=np.stack(boxes),
        score=np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]),
        label=np.array([0, 0, 0, 0, 0, 0, 0]),
    )
    kinds, beneath = judge(found, truth)
    assert kinds.tolist() == [
        "right",
        "found twice",
        "another class",
        "badly placed",
        "nothing there",
        "optional",
        "nothing there",
    ]
    assert beneath.tolist() == [0, 0, 1, 0, -1, 2, -1]


def shown(kind: str, other: int | None = None) -> ShownObject:
    box = np.array([20.0, 10, 40, 30])
    return ShownObject(7, 0, 0.75, kind, other, PIXELS, box, None if other is None else box + 4)


def test_the_numbers_and_the_pictures_are_shown() -> None:
    mistakes = ObjectMistakes(
        class_names=("cat", "<dog>"),
        split="test",
        images=3,
        of=3,
        step=1200,
        objects=10,
        missed=2,
        alarms={"found twice": 1, "another class": 4},
        misses=(shown("missed"),),
        surest=(shown("another class", 1), shown("nothing there")),
    )
    page = read(f"<html>{draw_object_mistakes(mistakes, 'run')}</html>")
    assert "2 of the 10 objects in 3 images of the split test are missed" in page.text
    assert "5 boxes are false alarms, by the checkpoint of step 1,200" in page.text
    assert page.one("table").rows()[1:] == [["found twice", "1"], ["another class", "4"]]
    assert [image.attributes["alt"] for image in page.all("img")] == [
        "Image 7: cat, found at 75.0\u00a0%",
        "Image 7: cat, another class: <dog>",
        "Image 7: cat, nothing there",
    ]
    drawn = draw_boxes(shown("nothing there"))
    assert drawn.shape == (128, 128, 3)
    assert (drawn.reshape(-1, 3) == [255, 23, 68]).all(1).sum() > 200
