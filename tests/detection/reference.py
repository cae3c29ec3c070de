"""Detection's algorithms as plain loops, from their descriptions."""

from pathlib import Path

import numpy as np

from resnet_jax.detection.rows import Found, Truth

GOLDEN = Path(__file__).parents[1] / "golden" / "detection" / "torchvision.npz"
THRESHOLDS = (0.3, 0.5, 0.7)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the IoU of two boxes; 0 for two empty ones."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum(max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0) for box in (a, b))
    return shared / (areas - shared) if areas > shared else 0.0


def near(a: np.ndarray, b: np.ndarray) -> bool:
    """Returns whether two boxes share anything."""
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


def greedy(
    boxes: np.ndarray, scores: np.ndarray, valid: np.ndarray, threshold: float, count: int, labels: np.ndarray
) -> np.ndarray:
    """Returns which boxes greedy non-maximum suppression keeps."""
    keep = np.zeros(len(boxes), bool)
    kept: list[int] = []
    for number in np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable"):
        if not valid[number] or np.isnan(scores[number]) or len(kept) == count:
            continue
        rivals = [
            other for other in kept if labels[other] == labels[number] and near(boxes[number], boxes[other])
        ]
        if all(not overlap(boxes[number], boxes[other]) > threshold for other in rivals):
            kept.append(int(number))
            keep[number] = True
    return keep


def devkit_precision(found: Found, truth: Truth, label: int, threshold: float, *, eleven: bool) -> float:
    """Returns the average precision of a class as VOCevaldet describes it; NaN without objects."""
    objects = [row for row in range(len(truth.label)) if truth.label[row] == label]
    optional = {row for row in objects if truth.difficult[row] or truth.crowd[row]}
    needed = len(objects) - len(optional)
    if not needed:
        return float("nan")
    rows = [row for row in range(len(found.label)) if found.label[row] == label]
    rows.sort(key=lambda row: -found.score[row])
    used: set[int] = set()
    right, wrong, recalls, precisions = 0, 0, [], []
    for row in rows:
        best, most = -1.0, None
        for number in objects:
            if truth.example[number] == found.example[row]:
                shared = overlap(found.box[row], truth.box[number])
                if shared > best:
                    best, most = shared, number
        if best > threshold and most is not None:
            if most not in optional:
                right, wrong = (right + 1, wrong) if most not in used else (right, wrong + 1)
                used.add(most)
        else:
            wrong += 1
        recalls.append(right / needed)
        precisions.append(right / max(right + wrong, 1))
    if eleven:
        points = np.arange(0, 1.1, 0.1)
        return sum(
            max((p for p, r in zip(precisions, recalls, strict=True) if r >= point), default=0.0) / 11
            for point in points
        )
    total, before = 0.0, 0.0
    for place, recall in enumerate(recalls):
        if recall > before:
            total += (recall - before) * max(precisions[place:])
            before = recall
    return total
