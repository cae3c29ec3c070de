"""Errors of runs against steps, and their mean and deviation over seeds."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from resnet_jax.training.logging import Record


class CurvePoint(NamedTuple):
    """An evaluation: its step, mean training error since the previous one, and test error, in percent."""

    step: int
    train_error: float
    test_error: float


class MeanCurve(NamedTuple):
    """Steps, means over seeds of training and test error in percent, and the deviation of the test error."""

    steps: Float[np.ndarray, " n"]
    train_error: Float[np.ndarray, " n"]
    test_error: Float[np.ndarray, " n"]
    deviation: Float[np.ndarray, " n"]


def error_curve(records: Sequence[Record]) -> list[CurvePoint]:
    """Returns a point for every evaluation of a run."""
    points, since = [], []
    for record in records:
        since.append(100 * (1 - record["top1"]))
        if "test_top1" in record:
            points.append(CurvePoint(int(record["step"]), fmean(since), 100 * (1 - record["test_top1"])))
            since = []
    return points


def mean_curve(curves: Sequence[Sequence[CurvePoint]]) -> MeanCurve:
    """Returns the mean of curves, one or more, at the steps at which every run was evaluated."""
    by_step = [{point.step: point for point in curve} for curve in curves]
    steps = sorted(set.intersection(*map(set, by_step)))
    errors = np.array([[curve[step][1:] for curve in by_step] for step in steps]).reshape(-1, len(curves), 2)
    train, test = errors.mean(1).T
    return MeanCurve(np.array(steps), train, test, errors[:, :, 1].std(1, ddof=min(1, len(curves) - 1)))


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns mean and sample deviation (n − 1); None where there are too few values."""
    return fmean(values) if values else None, stdev(values) if len(values) > 1 else None


def format_error(mean: float | None, deviation: float | None = None) -> str:
    """Returns an error as in `8.75 ± 0.16`, a dash where there is none."""
    if mean is None:
        return "–"
    return f"{mean:.2f}" + (f" ± {deviation:.2f}" if deviation is not None else "")
