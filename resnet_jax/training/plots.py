"""The curve of a run, in the look of the paper's Fig. 6."""

import warnings

import numpy as np
from etils import epath

from resnet_jax.files import open_for_replacing
from resnet_jax.training.logging import Record, read_metrics
from resnet_jax.training.task import Curve, Display
from resnet_jax.training.workdir import CURVES


def draw_run_curves(workdir: epath.Path, display: Display) -> None:
    """Writes curves.png: what the task shows, in training (thin) and in tests (bold), by iteration."""
    from matplotlib.figure import Figure  # Here: it takes half a second to import.

    records, curve = read_metrics(workdir), display.curve
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot()
    steps, values = _points(records, curve, curve.train)
    axes.plot(steps, values, color="tab:red", linewidth=0.6, alpha=0.25)
    axes.plot(steps, smoothed_values(values), color="tab:red", linewidth=1.0, alpha=0.9, label="train (mean)")
    axes.plot(
        *_points(records, curve, curve.test),
        color="tab:red",
        linewidth=2,
        marker="o",
        markersize=3,
        label="test",
    )
    axes.set(title=display.title, xlabel="iterations", ylabel=curve.label)
    axes.set(xlim=(0, None), ylim=(0, _limit(records, curve)))
    axes.grid(linestyle=":", linewidth=0.6)
    axes.legend(frameon=False)
    with warnings.catch_warnings(), open_for_replacing(workdir / CURVES) as file:
        warnings.simplefilter("ignore")
        figure.savefig(file, format="png", dpi=160)


def smoothed_values(values: list[float]) -> list[float]:
    """Returns the mean of the fiftieth of the values around each one, cut off at the ends."""
    half = max(1, len(values) // 100)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(0, places - half), np.minimum(len(values), places + half + 1)
    return list((sums[last] - sums[first]) / (last - first))


def _points(records: list[Record], curve: Curve, name: str) -> tuple[list[float], list[float]]:
    chosen = [record for record in records if name in record]
    return [record["step"] for record in chosen], [curve.value(record[name]) for record in chosen]


def _limit(records: list[Record], curve: Curve) -> float:
    """Returns the upper end of the axis, without the first tenth of the run, which starts at chance."""
    values = sorted(_points(records[len(records) // 10 :] or records, curve, curve.train)[1])
    return max(curve.least, 1.3 * values[int(0.98 * (len(values) - 1))])
