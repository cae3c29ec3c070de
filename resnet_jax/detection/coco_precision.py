"""Average precision of COCO, as pycocotools computes it for boxes, in float64."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from resnet_jax.detection.average_precision import mean_of
from resnet_jax.detection.rows import Found, Truth

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""IoU that a detection must reach, which the average precision is a mean over."""

RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Detections of an image and a class that count, the likeliest ones."""

AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Ranges of the objects' areas in pixels, both ends included."""


@dataclasses.dataclass(frozen=True)
class CocoPrecision:
    """Average precision over objects of a range of areas.

    Attributes:
        by_class: Mean over the overlaps, by label; NaN for a class without objects.
        mean: Mean over overlaps and classes with objects (AP@[.5, .95]); NaN if there are none.
        at_50: Mean over the classes at IoU 0.5.
        at_75: Mean over the classes at IoU 0.75.
        classes: Number of classes with objects.
    """

    by_class: Float[np.ndarray, " c"]
    mean: float
    at_50: float
    at_75: float
    classes: int


def coco(found: Found, truth: Truth, classes: int, *, area: str = "all") -> CocoPrecision:
    """Returns the average precision of COCO.

    In each image the detections of a class, by falling score, take the free object that they overlap most.
    Crowds may be taken many times, by the share of the detection that lies in them, and what takes one counts
    for nothing, as do objects and detections of other areas. Difficult objects are objects like others, as in
    pycocotools.

    Args:
        found: Detections.
        truth: Objects.
        classes: Number of classes.
        area: A range of AREAS.
    """
    precision = np.full((len(OVERLAPS), classes), np.nan)
    for label in range(classes):
        curves = _of_class(found, truth, label, AREAS[area])
        if curves is not None:
            precision[:, label] = curves
    of_overlap = [mean_of(row).mean for row in precision]
    whole = mean_of(precision.mean(0))
    return CocoPrecision(whole.by_class, whole.mean, of_overlap[0], of_overlap[5], whole.classes)


def _of_class(
    found: Found, truth: Truth, label: int, limits: tuple[float, float]
) -> Float[np.ndarray, " t"] | None:
    """Returns the average precision of a class at every overlap; None if there are no objects."""
    rows, objects = np.flatnonzero(found.label == label), np.flatnonzero(truth.label == label)
    ignored = truth.crowd[objects] | (truth.area[objects] < limits[0]) | (truth.area[objects] > limits[1])
    needed = int((~ignored).sum())
    if not needed:
        return None
    of_image = {int(image): members for image, members in _groups(truth.example[objects])}
    scores, matches, left_out = [], [], []
    for image, members in _groups(found.example[rows]):
        chosen = rows[members]
        chosen = chosen[np.argsort(-found.score[chosen], kind="mergesort")[:MOST]]
        within = of_image.get(int(image), np.zeros(0, int))
        taken = _match(
            found.box[chosen], truth.box[objects[within]], truth.crowd[objects[within]], ignored[within]
        )
        sides = found.box[chosen][:, 2:] - found.box[chosen][:, :2]
        areas = sides.prod(1)
        outside = (areas < limits[0]) | (areas > limits[1])
        hit = taken >= 0
        of_ignored = np.where(hit, np.append(ignored[within], False)[taken], outside)
        scores.append(found.score[chosen])
        matches.append(hit)
        left_out.append(of_ignored)
    if not scores:
        return np.zeros(len(OVERLAPS))
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    hit, out = (np.concatenate(parts, 1)[:, order] for parts in (matches, left_out))
    return np.array([_area_under(right, needed) for right in _pairs(hit, out)])


def _groups(examples: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Returns every image with the places of its rows, by rising image."""
    order = np.argsort(examples, kind="stable")
    images, starts = np.unique(examples[order], return_index=True)
    return list(zip(images.tolist(), np.split(order, starts[1:]), strict=True)) if len(images) else []


def _pairs(hit: Bool[np.ndarray, "t n"], out: Bool[np.ndarray, "t n"]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the running numbers of right and of wrong detections at every overlap."""
    return [
        (np.cumsum(right & ~ignored).astype(float), np.cumsum(~right & ~ignored).astype(float))
        for right, ignored in zip(hit, out, strict=True)
    ]


def _area_under(counts: tuple[np.ndarray, np.ndarray], needed: int) -> float:
    """Returns the mean precision at 101 recalls."""
    right, wrong = counts
    recall, precision = right / needed, right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(places, len(precision))].mean())


def _match(
    boxes: Float[np.ndarray, "n 4"],
    objects: Float[np.ndarray, "m 4"],
    crowd: Bool[np.ndarray, " m"],
    ignored: Bool[np.ndarray, " m"],
) -> np.ndarray:
    """Returns the object that each detection takes at each overlap, int[t n]; -1 is none."""
    taken = np.full((len(OVERLAPS), len(boxes)), -1)
    if not len(objects):
        return taken
    overlaps = _overlaps(boxes, objects, crowd)
    least = np.minimum(OVERLAPS, 1 - 1e-10)[:, None]
    free = np.ones((len(OVERLAPS), len(objects)), bool)
    for number, row in enumerate(overlaps):
        reached = (row >= least) & (free | crowd)
        regular = reached & ~ignored
        candidates = np.where(regular.any(1, keepdims=True), regular, reached & ignored)
        values = np.where(candidates, row, -1.0)
        # Of equal ones the last is taken.
        best = len(objects) - 1 - values[:, ::-1].argmax(1)
        some = candidates.any(1)
        taken[some, number] = best[some]
        free[some, best[some]] = False
    return taken


def _overlaps(
    boxes: Float[np.ndarray, "n 4"], objects: Float[np.ndarray, "m 4"], crowd: Bool[np.ndarray, " m"]
) -> Float[np.ndarray, "n m"]:
    """Returns the IoU of every pair; with a crowd, the share of the detection that lies in it."""
    sides = np.minimum(boxes[:, None, 2:], objects[None, :, 2:]) - np.maximum(
        boxes[:, None, :2], objects[None, :, :2]
    )
    shared = np.maximum(sides, 0).prod(-1)
    areas, of_objects = ((one[:, 2:] - one[:, :2]).prod(1) for one in (boxes, objects))
    union = np.where(crowd, areas[:, None], areas[:, None] + of_objects - shared)
    return shared / np.where(union > 0, union, 1)
