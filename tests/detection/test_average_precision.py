"""The metrics are pycocotools' (committed values) and the VOC development kit's (a plain loop), to 1e-9."""

import numpy as np
import pytest

from resnet_jax.detection.average_precision import voc
from resnet_jax.detection.coco_precision import AREAS, coco
from resnet_jax.detection.rows import Found, Truth
from tests.detection.metric_cases import ALL_CASES, CLASSES, COCO_GOLDEN, case
from tests.detection.reference import devkit_precision


@pytest.mark.parametrize("name", ALL_CASES)
def test_coco_is_pycocotools(name: str) -> None:
    found, truth = ALL_CASES[name]
    with np.load(COCO_GOLDEN) as stored:
        wanted = stored[name]
    for place, area in enumerate(AREAS):
        ours, present = coco(found, truth, CLASSES, area=area), ~np.isnan(wanted[0, :, place])
        np.testing.assert_allclose(ours.by_class, wanted[:, :, place].mean(0), rtol=0, atol=1e-9)
        assert ours.classes == present.sum()
        if present.any():
            assert ours.mean == pytest.approx(wanted[:, present, place].mean(), abs=1e-9)
            assert ours.at_50 == pytest.approx(wanted[0, present, place].mean(), abs=1e-9)
            assert ours.at_75 == pytest.approx(wanted[5, present, place].mean(), abs=1e-9)


@pytest.mark.parametrize("eleven", [True, False])
@pytest.mark.parametrize("name", ALL_CASES)
def test_voc_is_the_development_kits(name: str, eleven: bool) -> None:
    found, truth = ALL_CASES[name]
    ours = voc(found, truth, CLASSES, eleven=eleven)
    for label in range(CLASSES):
        wanted = devkit_precision(found, truth, label, 0.5, eleven=eleven)
        assert ours.by_class[label] == pytest.approx(wanted, abs=1e-9, nan_ok=True)


def perfect(truth: Truth) -> Found:
    return Found(truth.example, truth.box, np.linspace(1, 0.5, len(truth.label)), truth.label)


def test_the_truth_itself_is_perfect_and_other_labels_are_worth_nothing() -> None:
    truth = case(1)[1]
    found = perfect(truth)
    assert voc(found, truth, CLASSES).mean == coco(found, truth, CLASSES).mean == 1
    swapped = Found(found.example, found.box, found.score, (found.label + 1) % CLASSES)
    assert voc(swapped, truth, CLASSES).mean < 0.1
    assert coco(swapped, truth, CLASSES).mean < 0.1


def test_three_tenths_of_recall_do_not_reach_the_fourth_of_eleven_points() -> None:
    """np.arange(0, 1.1, 0.1)[3] is 0.30000000000000004."""
    boxes = np.arange(10)[:, None] * 20.0 + np.array([0.0, 0, 10, 10])
    none = np.zeros(10, bool)
    truth = Truth(1, np.zeros(10, int), boxes, np.zeros(10, int), none, none, np.full(10, 100.0))
    found = Found(np.zeros(3, int), boxes[:3], np.ones(3), np.zeros(3, int))
    assert voc(found, truth, 1, eleven=True).mean == pytest.approx(3 / 11)
    assert voc(found, truth, 1).mean == pytest.approx(0.3)


def test_a_split_without_detections_or_without_objects() -> None:
    found, truth = case(0)
    nothing = Found(found.example[:0], found.box[:0], found.score[:0], found.label[:0])
    assert voc(nothing, truth, CLASSES).mean == coco(nothing, truth, CLASSES).mean == 0
    rows = np.zeros(0, int)
    empty = Truth(3, rows, np.zeros((0, 4)), rows, rows.astype(bool), rows.astype(bool), rows.astype(float))
    assert np.isnan([voc(found, empty, CLASSES).mean, coco(found, empty, CLASSES).mean]).all()
    assert voc(found, empty, CLASSES).classes == 0


def test_difficult_objects_and_crowds_are_neither_found_nor_missed_in_voc() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    truth = Truth(
        1,
        np.zeros(3, int),
        boxes,
        np.zeros(3, int),
        np.array([False, True, False]),
        np.array([False, False, True]),
        np.full(3, 100.0),
    )
    found = Found(np.zeros(3, int), boxes, np.array([0.1, 0.9, 0.8]), np.zeros(3, int))
    assert voc(found, truth, 1).mean == 1
