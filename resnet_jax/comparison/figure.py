"""The curves of a comparison: the mean over seeds, and a band of one standard deviation around it."""

import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from etils import epath
from jaxtyping import Float

from resnet_jax.comparison.results import FIGURE, Comparison, caption
from resnet_jax.training.logging import Record, read_metrics

Curve = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
"""Steps, and mean and standard deviation of the error in per cent over the seeds."""


def draw_comparison(comparison: Comparison, directory: epath.PathLike) -> None:
    """Writes compare.png: test error (bold, with its band) and training error (thin) against iterations, a colour a config."""
    from matplotlib.figure import Figure  # Here: it takes half a second to import.

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    highest = 2.0
    for number, outcome in enumerate(comparison.outcomes):
        records = [read_metrics(result.workdir) for result in outcome.runs]
        if not records:
            continue
        colour = f"C{number}"
        steps, mean, deviation = evaluated_curve(records)
        axes.plot(steps, mean, color=colour, linewidth=2, label=outcome.name)
        axes.fill_between(
            steps, np.maximum(mean - deviation, 0), mean + deviation, color=colour, alpha=0.2, linewidth=0
        )
        at, training = training_curve(records, steps)
        axes.plot(at, training, color=colour, linewidth=0.8, linestyle="--")
        highest = max(highest, 1.3 * float(np.quantile(mean[len(mean) // 5 :], 0.9)))
    axes.set(
        title=caption(comparison, "Test error (bold) and training error (dashed)"),
        xlabel="iterations",
        ylabel="error (%)",
        xlim=(0, None),
        ylim=(0, min(100, highest)),
    )
    axes.title.set_fontsize(9)
    axes.grid(linestyle=":", linewidth=0.6)
    axes.legend(frameon=False)
    with warnings.catch_warnings(), (epath.Path(directory) / FIGURE).open("wb") as file:
        warnings.simplefilter("ignore")
        figure.savefig(file, format="png", dpi=160)


def evaluated_curve(runs: Sequence[Sequence[Record]]) -> Curve:
    """Returns the test error at the steps at which every run was evaluated."""
    errors: dict[float, list[float]] = defaultdict(list)
    for records in runs:
        for record in records:
            if "test_top1" in record:
                errors[record["step"]].append(100 * (1 - record["test_top1"]))
    steps = sorted(step for step, values in errors.items() if len(values) == len(runs))
    values = np.array([errors[step] for step in steps])
    return np.array(steps), values.mean(1), values.std(1, ddof=1 if len(runs) > 1 else 0)


def training_curve(
    runs: Sequence[Sequence[Record]], steps: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Returns the training error, averaged over the runs and over the steps from one of `steps` to the next."""
    at = np.array([record["step"] for records in runs for record in records])
    errors = np.array([100 * (1 - record["top1"]) for records in runs for record in records])
    bins = np.searchsorted(steps, at)
    filled = [number for number in range(len(steps)) if (bins == number).any()]
    return steps[filled], np.array([errors[bins == number].mean() for number in filled])
