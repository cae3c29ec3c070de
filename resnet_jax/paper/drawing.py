"""Tables and figures as pictures, in the paper's style: training error thin and dashed, test error bold."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resnet_jax.analysis import Analysis
from resnet_jax.sweeps.errors_over_seeds import MeanCurve
from resnet_jax.sweeps.outputs import new_figure, plot_errors, save_figure

if TYPE_CHECKING:  # Matplotlib takes half a second to import.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NET_COLORS = ("tab:olive", "tab:cyan", "tab:green", "tab:red", "black", "tab:purple", "tab:orange")
CAPTION_SIZE = 8
LEAST_LIMIT = 5
"""Smallest upper end of an axis of errors, in percent; as in the paper it is 1.5 times the worst one."""


def draw_error_panels(
    file: Path, panels: Mapping[str, Sequence[str]], curves: Mapping[str, MeanCurve], *, caption: str
) -> None:
    """Writes training error (dashed) and test error (bold) of each panel's nets against iterations."""
    colors = _net_colors(net for nets in panels.values() for net in nets)
    figure, panel_axes = _panel_figure(len(panels), caption)
    limit = min(100, max(LEAST_LIMIT, 1.5 * max(curve.test_error[-1] for curve in curves.values())))
    for axes, (title, nets) in zip(panel_axes, panels.items(), strict=True):
        train, test = title != "test error", title != "training error"
        for net in nets:
            plot_errors(axes, curves[net], color=colors[net], label=net, train=train, test=test)
        axes.set(title=title, xlabel="iterations", ylabel="error (%)", xlim=(0, None), ylim=(0, limit))
        axes.grid(axis="y", linestyle="--", linewidth=0.6)
        axes.legend(fontsize=8)
    save_figure(file, figure)


def draw_responses(file: Path, panels: Sequence[str], analyses: dict[str, Analysis], *, caption: str) -> None:
    """Writes the deviations of the responses of each net, in layer order and sorted by size (Fig. 7)."""
    colors = _net_colors(analyses)
    figure, panel_axes = _panel_figure(len(panels), caption)
    for axes, title, ordered in zip(
        panel_axes, panels, (list, lambda values: sorted(values, reverse=True)), strict=True
    ):
        for net, analysis in analyses.items():
            values = ordered(analysis.responses.deviations.values())
            style = {"linestyle": "--", "linewidth": 1.2} if net.startswith("plain") else {"linewidth": 1.8}
            axes.plot(range(1, len(values) + 1), values, color=colors[net], label=net, **style)
        axes.set(title=title, xlabel="layer", ylabel="standard deviation", xlim=(0, None), ylim=(0, None))
        axes.grid(axis="y", linestyle="--", linewidth=0.6)
        axes.legend(fontsize=8)
    save_figure(file, figure)


def draw_table(file: Path, header: Sequence[str], lines: Sequence[Sequence[str]], *, caption: str) -> None:
    """Writes a table with horizontal rules, names at the left and numbers at the right."""
    wrapped = textwrap.wrap(caption, 90)
    height = len(lines) + 2 + len(wrapped)
    figure = new_figure(6, 0.26 * height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(height, 0))
    places = [0.03, *np.linspace(0.4, 0.97, len(header))[1:]] if len(header) > 1 else [0.03]
    for number, line in enumerate([header, *lines]):
        for column, (place, text) in enumerate(zip(places, line, strict=True)):
            axes.text(
                place,
                number + 0.6,
                text,
                ha="right" if column else "left",
                va="center",
                fontsize=9,
                family="serif",
            )
    for level, width in ((0.1, 1.2), (1.1, 0.7), (len(lines) + 1.1, 1.2)):
        axes.hlines(level, 0.02, 0.98, color="black", linewidth=width)
    axes.text(
        0.03, len(lines) + 1.5, "\n".join(wrapped), ha="left", va="top", fontsize=CAPTION_SIZE, family="serif"
    )
    save_figure(file, figure)


def _panel_figure(panels: int, caption: str) -> tuple["Figure", Sequence["Axes"]]:
    figure = new_figure(4.5 * panels, 4.2)
    figure.supxlabel("\n".join(textwrap.wrap(caption, 75 * panels)), fontsize=CAPTION_SIZE, family="serif")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _net_colors(nets: Iterable[str]) -> dict[str, str]:
    """Returns a color for each net: nets of one depth have the same."""
    depths = {net: net.removeprefix("plain").removeprefix("resnet").partition(",")[0] for net in nets}
    order = list(dict.fromkeys(depths.values()))
    return {net: NET_COLORS[order.index(depth) % len(NET_COLORS)] for net, depth in depths.items()}
