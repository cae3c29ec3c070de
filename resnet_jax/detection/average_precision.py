"""Average precision of PASCAL VOC, as its development kit computes it, in float64."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from resnet_jax.detection.rows import Found, Truth


@dataclasses.dataclass(frozen=True)
class Precision:
    """Average precision of every class.

    Attributes:
        by_class: Average precision by label; NaN for a class without objects.
        mean: Mean over the classes with objects; NaN if there are none.
        classes: Number of classes with objects.
    """

    by_class: Float[np.ndarray, " c"]
    mean: float
    classes: int


def mean_of(by_class: Float[np.ndarray, " c"]) -> Precision:
    """Returns the mean over the classes that have a value."""
    present = by_class[~np.isnan(by_class)]
    return Precision(by_class, float(present.mean()) if len(present) else float("nan"), len(present))


def pairwise_iou(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Returns the intersection over union of every pair; 0 where both are empty."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.maximum(sides, 0).prod(-1)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(-1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return shared / np.where(union > 0, union, 1)


def voc(
    found: Found, truth: Truth, classes: int, *, eleven: bool = False, threshold: float = 0.5
) -> Precision:
    """Returns the average precision of PASCAL VOC.

    The detections of a class in all images are taken by their scores. Each goes to the object of its class
    and image that it overlaps most; it is right if their IoU is above the threshold and the object was not
    found before. A detection of a difficult object counts for nothing.

    Args:
        found: Detections.
        truth: Objects; difficult ones, and crowds, need not be found.
        classes: Number of classes.
        eleven: Mean of the precision at eleven recalls, as until VOC 2009; else the area under the curve.
        threshold: IoU that a detection must exceed.
    """
    by_class = np.full(classes, np.nan)
    for label in range(classes):
        of_class = truth.label == label
        optional = (truth.difficult | truth.crowd)[of_class]
        needed = int((~optional).sum())
        if needed:
            rows = found.label == label
            right, wrong = _judge(
                Found(found.example[rows], found.box[rows], found.score[rows], found.label[rows]),
                truth.example[of_class],
                truth.box[of_class],
                optional,
                threshold,
            )
            recall = np.cumsum(right) / needed
            precision = np.cumsum(right) / np.maximum(np.cumsum(right) + np.cumsum(wrong), 1)
            by_class[label] = (_eleven_points if eleven else _area)(recall, precision)
    return mean_of(by_class)


def _judge(
    found: Found,
    example: np.ndarray,
    boxes: Float[np.ndarray, "m 4"],
    optional: Bool[np.ndarray, " m"],
    threshold: float,
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Returns which detections of a class, by falling score, are right and which are wrong."""
    order = np.argsort(-found.score, kind="stable")
    members: dict[int, list[int]] = {}
    for number, image in enumerate(example.tolist()):
        members.setdefault(image, []).append(number)
    taken = np.zeros(len(boxes), bool)
    right, wrong = np.zeros(len(order), bool), np.zeros(len(order), bool)
    for place, row in enumerate(order):
        of_image = members.get(int(found.example[row]))
        if of_image is None:
            wrong[place] = True
            continue
        overlaps = pairwise_iou(found.box[row : row + 1], boxes[of_image])[0]
        best = int(overlaps.argmax())
        number = of_image[best]
        if overlaps[best] <= threshold:
            wrong[place] = True
        elif not optional[number]:
            right[place], wrong[place] = not taken[number], taken[number]
            taken[number] = True
    return right, wrong


def _eleven_points(recall: Float[np.ndarray, " n"], precision: Float[np.ndarray, " n"]) -> float:
    highest = [
        precision[recall >= least].max() if (recall >= least).any() else 0.0
        for least in np.arange(0, 1.1, 0.1)
    ]
    return float(sum(value / 11 for value in highest))


def _area(recall: Float[np.ndarray, " n"], precision: Float[np.ndarray, " n"]) -> float:
    steps = np.concatenate([[0.0], recall, [1.0]])
    heights = np.concatenate([[0.0], precision, [0.0]])
    heights = np.maximum.accumulate(heights[::-1])[::-1]
    moved = np.flatnonzero(steps[1:] != steps[:-1])
    return float(((steps[moved + 1] - steps[moved]) * heights[moved + 1]).sum())
