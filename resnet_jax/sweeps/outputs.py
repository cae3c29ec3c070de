"""Files that the results of a sweep are written to: rows as CSV, and curves as pictures."""

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from resnet_jax.files import PathLike, open_for_replacing, write_text
from resnet_jax.sweeps.errors_over_seeds import MeanCurve

if TYPE_CHECKING:  # Matplotlib takes half a second to import.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_csv(path: PathLike, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    """Writes rows, lists with spaces between, under a header of the columns (default: of the first row)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {k: " ".join(map(str, cell)) if isinstance(cell, list) else cell for k, cell in row.items()}
        writer.writerow(cells)
    write_text(path, text.getvalue())


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> "Figure":
    """Returns an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def save_figure(path: PathLike, figure: "Figure") -> None:
    """Writes a figure as PNG."""
    with warnings.catch_warnings(), open_for_replacing(path) as file:
        warnings.simplefilter("ignore")
        figure.savefig(file, format="png", dpi=160)


def plot_errors(
    axes: "Axes", curve: MeanCurve, *, color: str, label: str, train: bool = True, test: bool = True
) -> None:
    """Draws the training error as a thin dashed line and the test error as a bold one."""
    if train:
        axes.plot(curve.steps, curve.train_error, color=color, linewidth=1, linestyle="--")
    if test:
        axes.plot(curve.steps, curve.test_error, color=color, linewidth=2)
    axes.plot([], [], color=color, linewidth=2, label=label)
