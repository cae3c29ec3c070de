"""What was found in a split and what there is, row by row, in pixels of the original images."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from resnet_jax.detection.object_source import ObjectSource


@dataclasses.dataclass(frozen=True)
class Found:
    """Detections of a split.

    Attributes:
        example: Number of the image.
        box: Edges in pixels of the original image.
        score: Score of the class.
        label: Class.
    """

    example: Int[np.ndarray, " n"]
    box: Float[np.ndarray, "n 4"]
    score: Float[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Truth:
    """Objects of a split.

    Attributes:
        images: Number of images.
        example: Number of the image.
        box: Edges in pixels of the original image.
        label: Class.
        difficult: Objects that need not be found.
        crowd: Boxes around groups of objects.
        area: Areas in pixels.
    """

    images: int
    example: Int[np.ndarray, " m"]
    box: Float[np.ndarray, "m 4"]
    label: Int[np.ndarray, " m"]
    difficult: Bool[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]
    area: Float[np.ndarray, " m"]


def truth_of(source: ObjectSource) -> Truth:
    """Returns the objects of a split."""
    all_of_them = [source.annotation(index) for index in range(len(source))]

    def joined(name: str, *shape: int) -> np.ndarray:
        return np.concatenate([np.zeros((0, *shape)), *(getattr(one, name) for one in all_of_them)])

    counts = [len(one.label) for one in all_of_them]
    return Truth(
        images=len(source),
        example=np.repeat(np.arange(len(source)), counts),
        box=joined("box", 4),
        label=joined("label").astype(np.int64),
        difficult=joined("difficult").astype(bool),
        crowd=joined("crowd").astype(bool),
        area=joined("area"),
    )


def join_rows(parts: list[Found]) -> Found:
    """Returns the detections of parts of a split, by image and in the order of their scores."""
    names = ("example", "box", "score", "label")
    shapes = {"box": (0, 4)}
    joined = {
        name: np.concatenate([np.zeros(shapes.get(name, (0,))), *(getattr(part, name) for part in parts)])
        for name in names
    }
    order = np.lexsort((-joined["score"], joined["example"]))
    rows = {name: array[order] for name, array in joined.items()}
    return Found(rows["example"].astype(np.int64), rows["box"], rows["score"], rows["label"].astype(np.int64))
