"""Tables and figures as pictures, in the paper's style: thin dashed lines for training error, bold ones for test error."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.analysis import Analysis
from resnet_jax.paper.results import Rows

COLOURS = ("tab:olive", "tab:cyan", "tab:green", "tab:red", "black", "tab:purple", "tab:orange")
CAPTION_SIZE = 8
LEAST_LIMIT = 5
"""Per cent that an axis of errors goes up to at least; it ends half as high again as the worst net does, as the paper's do."""


def draw_curves(file: Path, panels: dict[str, Sequence[str]], rows: Rows, *, caption: str) -> None:
    """Writes the training error (dashed) and the test error (bold) of each panel's nets against iterations, means over seeds."""
    colours = _colours([net for nets in panels.values() for net in nets])
    figure, axes = _figure(len(panels), caption)
    limit = min(100, max(LEAST_LIMIT, 1.5 * max(found[-1]["test_error"] for found in _by_net(rows).values())))
    for axis, (title, nets) in zip(axes, panels.items(), strict=True):
        for net in nets:
            if line := _mean_curve(rows, net):
                steps, train, test = line
                if title != "test error":
                    axis.plot(steps, train, color=colours[net], linewidth=1, linestyle="--")
                if title != "training error":
                    axis.plot(steps, test, color=colours[net], linewidth=2)
                axis.plot([], [], color=colours[net], linewidth=2, label=net)
        axis.set(title=title, xlabel="iterations", ylabel="error (%)", xlim=(0, None), ylim=(0, limit))
        axis.grid(axis="y", linestyle="--", linewidth=0.6)
        axis.legend(fontsize=8)
    _save(figure, file)


def draw_responses(file: Path, panels: Sequence[str], analyses: dict[str, Analysis], *, caption: str) -> None:
    """Writes the deviations of the responses of each net, in layer order and sorted by size (Fig. 7)."""
    colours = _colours(list(analyses))
    figure, axes = _figure(len(panels), caption)
    for axis, title, ordered in zip(
        axes, panels, (list, lambda values: sorted(values, reverse=True)), strict=True
    ):
        for net, analysis in analyses.items():
            values = ordered(analysis.responses.deviations.values())
            style = {"linestyle": "--", "linewidth": 1.2} if net.startswith("plain") else {"linewidth": 1.8}
            axis.plot(range(1, len(values) + 1), values, color=colours[net], label=net, **style)
        axis.set(title=title, xlabel="layer", ylabel="standard deviation", xlim=(0, None), ylim=(0, None))
        axis.grid(axis="y", linestyle="--", linewidth=0.6)
        axis.legend(fontsize=8)
    _save(figure, file)


def draw_table(file: Path, header: Sequence[str], lines: Sequence[Sequence[str]], *, caption: str) -> None:
    """Writes a table with rules above and below it and under its header, names at the left and numbers at the right."""
    wrapped = textwrap.wrap(caption, 90)
    height = len(lines) + 2 + len(wrapped)
    figure = _new_figure(6, 0.26 * height)
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
    _save(figure, file)


def _new_figure(width: float, height: float, **options: Any) -> Any:
    from matplotlib.figure import Figure  # Here: it takes half a second to import.

    return Figure(figsize=(width, height), **options)


def _figure(panels: int, caption: str) -> tuple[Any, Any]:
    figure = _new_figure(4.5 * panels, 4.2, layout="constrained")
    figure.supxlabel("\n".join(textwrap.wrap(caption, 75 * panels)), fontsize=CAPTION_SIZE, family="serif")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _save(figure: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=160)


def _colours(nets: Sequence[str]) -> dict[str, str]:
    """Returns a colour for each net: nets of one depth have the same."""
    depths = list(dict.fromkeys(_depth(net) for net in nets))
    return {net: COLOURS[depths.index(_depth(net)) % len(COLOURS)] for net in nets}


def _depth(net: str) -> str:
    return net.removeprefix("plain").removeprefix("resnet").partition(",")[0]


def _by_net(rows: Rows) -> dict[str, Rows]:
    return {
        net: [row for row in rows if row["net"] == net] for net in dict.fromkeys(row["net"] for row in rows)
    }


def _mean_curve(rows: Rows, net: str) -> tuple[list[int], list[float], list[float]] | None:
    found = _by_net(rows).get(net, [])
    steps = sorted({row["step"] for row in found})
    train, test = (
        [float(np.mean([row[name] for row in found if row["step"] == step])) for step in steps]
        for name in ("train_error", "test_error")
    )
    return (steps, train, test) if steps else None
