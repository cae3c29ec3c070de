"""A quantity by step, and fewer points of it: what a page can hold without hiding an end or an extreme."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

POINTS = 400
"""Largest number of points in a curve, about one per pixel of a narrow page."""


@dataclasses.dataclass(frozen=True)
class Series:
    """A quantity of a run by step.

    Attributes:
        name: Name of the run.
        run: Its number, which gives color and dashes.
        kind: What is drawn, for example "training" or "test".
        steps: Rising.
        values: Finite, one for each step.
        bold: Drawn bold, with a mark at every point.
    """

    name: str
    run: int
    kind: str
    steps: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    bold: bool = False

    def __len__(self) -> int:
        return len(self.steps)

    def thinned(self, points: int = POINTS) -> "Series":
        """Returns the series with about this many of its points; see `thin`."""
        kept = thin(self.values, points)
        return dataclasses.replace(self, steps=self.steps[kept], values=self.values[kept])

    def smoothed(self, points: int = POINTS) -> "Series":
        """Returns the mean of the `window` values around each of evenly spread points, both ends included."""
        kept = np.unique(np.linspace(0, len(self) - 1, min(points, len(self))).round().astype(int))
        means = running_mean(self.values, self.window)
        return dataclasses.replace(self, steps=self.steps[kept], values=means[kept])

    def band(self, points: int = POINTS) -> tuple["Series", "Series"]:
        """Returns the least and the greatest values of equal stretches, half as many as there are points."""
        stretches = np.array_split(np.arange(len(self)), points // 2)
        ends = [
            np.array([stretch[pick(self.values[stretch])] for stretch in stretches])
            for pick in (np.argmin, np.argmax)
        ]
        least, greatest = (
            dataclasses.replace(self, steps=self.steps[end], values=self.values[end]) for end in ends
        )
        return least, greatest

    @property
    def window(self) -> int:
        """Values that are averaged: a fiftieth of them, an odd number."""
        return len(self) // 50 // 2 * 2 + 1


def thin(values: Float[np.ndarray, " n"], points: int) -> Int[np.ndarray, " m"]:
    """Returns the indices of values that stand for all: first, last, and extremes of equal stretches between.

    Args:
        values: In order.
        points: Kept at most, at least 4; all where there are no more.
    """
    if len(values) <= points:
        return np.arange(len(values))
    stretches = np.array_split(np.arange(len(values)), (points - 2) // 2)
    extremes = [stretch[pick(values[stretch])] for stretch in stretches for pick in (np.argmin, np.argmax)]
    return np.unique([0, *extremes, len(values) - 1])


def running_mean(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """Returns the mean of the `window` (odd) values around each, of fewer near the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, stop = np.maximum(places - window // 2, 0), np.minimum(places + window // 2 + 1, len(values))
    return (sums[stop] - sums[first]) / (stop - first)
