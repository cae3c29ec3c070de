"""Who learns what, as plain loops over one box at a time."""

import numpy as np

from resnet_jax.detection.objects import Objects
from resnet_jax.detection.profiles import Profile
from tests.detection.reference import overlap


def learned(objects: Objects) -> list[int]:
    """Returns the numbers of the objects that are learned."""
    return [row for row in range(len(objects.label)) if objects.valid[row] and not objects.ignored[row]]


def in_ignored(box: np.ndarray, objects: Objects) -> bool:
    """Returns whether more than 70 % of a box lies in one ignored object."""
    area = max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
    for row in range(len(objects.label)):
        if objects.valid[row] and objects.ignored[row]:
            other = objects.box[row]
            width = min(box[2], other[2]) - max(box[0], other[0])
            height = min(box[3], other[3]) - max(box[1], other[1])
            if area and max(width, 0) * max(height, 0) / area > 0.7:
                return True
    return False


def anchor_roles(
    anchors: np.ndarray, objects: Objects, size: tuple[int, int], profile: Profile
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns which anchors are positive, which are negative, and the object that each overlaps most."""
    height, width = size
    usable = []
    for number, (left, top, right, bottom) in enumerate(anchors):
        x, y = (left + right) / 2, (top + bottom) / 2
        whole = left >= 0 and top >= 0 and right <= width and bottom <= height
        center = 0 <= x <= width and 0 <= y <= height
        if (whole if profile.only_inside else center) and not in_ignored(anchors[number], objects):
            usable.append(number)
    positive, negative = np.zeros(len(anchors), bool), np.zeros(len(anchors), bool)
    which = np.zeros(len(anchors), int)
    overlaps = {
        number: {row: overlap(anchors[number], objects.box[row]) for row in learned(objects)}
        for number in usable
    }
    for row in learned(objects):
        best = max((overlaps[number][row] for number in usable), default=0.0)
        for number in usable:
            if best > 0 and overlaps[number][row] == best:
                positive[number] = True
    for number in usable:
        largest = max(overlaps[number].values(), default=0.0)
        which[number] = max(overlaps[number], key=overlaps[number].__getitem__, default=0)
        if largest >= profile.anchor_positive:
            positive[number] = True
        elif largest < profile.anchor_negative and not positive[number]:
            negative[number] = True
    return positive, negative, which


def deltas_of(target: np.ndarray, anchor: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """Returns the deltas of R-CNN, appendix C, from one box to another."""
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    wide, high = target[2] - target[0], target[3] - target[1]
    x = (target[0] + wide / 2 - anchor[0] - width / 2) / width
    y = (target[1] + high / 2 - anchor[1] - height / 2) / height
    return np.array([x, y, np.log(wide / width), np.log(high / height)]) * np.array(weights)
