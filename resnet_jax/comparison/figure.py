"""The curves of a comparison: the mean over seeds, and a band of one standard deviation around it."""

import numpy as np
from etils import epath

from resnet_jax.comparison.outcomes import FIGURE, Comparison, caption
from resnet_jax.sweeps.errors_over_seeds import error_curve, mean_curve
from resnet_jax.sweeps.outputs import new_figure, plot_errors, save_figure
from resnet_jax.training.logging import read_metrics


def draw_comparison(comparison: Comparison, directory: epath.PathLike) -> None:
    """Writes compare.png: test error (bold, with its band) and training error (thin) against iterations."""
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot()
    highest = 2.0
    for number, outcome in enumerate(comparison.outcomes):
        if not outcome.runs:
            continue
        curve = mean_curve([error_curve(read_metrics(result.workdir)) for result in outcome.runs])
        mean, deviation = curve.test_error, curve.deviation
        plot_errors(axes, curve, color=f"C{number}", label=outcome.name)
        lower = np.maximum(mean - deviation, 0)
        axes.fill_between(curve.steps, lower, mean + deviation, color=f"C{number}", alpha=0.2, linewidth=0)
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
    if axes.lines:
        axes.legend(frameon=False)
    save_figure(epath.Path(directory) / FIGURE, figure)
