"""Making tables and figures: missing runs are trained, and rows are written as CSV and as a picture."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from resnet_jax.analysis import analyze_checkpoint
from resnet_jax.data.choices import DIGITS
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_encoded
from resnet_jax.models import create_model, default_image_size, summarize
from resnet_jax.paper.drawing import draw_error_panels, draw_responses, draw_table
from resnet_jax.paper.error_rows import Rows, Runs, curve_rows, final_rows, make_caption, table_rows
from resnet_jax.paper.reported import Figure, Table, reported_error
from resnet_jax.paper.request import Request
from resnet_jax.sweeps.errors_over_seeds import error_curve, format_error, mean_curve
from resnet_jax.sweeps.outputs import write_csv
from resnet_jax.sweeps.sweep import SweepRun, train_missing

FORWARD_AND_BACKWARD = 3
"""Multiply-adds of a training step, in those of its forward pass."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A table or a figure.

    Attributes:
        rows: A row of the table or a net of the figure each.
        header, lines: The rows as text.
        csv_rows: Rows that are written as CSV: of a figure its curves or its layers.
        draw: Writes the picture, from a file and a caption.
        remark: Part of the caption.
        caption: With data, budget and seeds.
        missing: Why rows have no numbers of ours; empty where all have.
    """

    rows: Rows
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    csv_rows: Rows
    draw: Callable[..., None]
    remark: str = ""
    caption: str = ""
    missing: str = ""


def make(request: Request, console: Console, *, table_file: Path, figure_file: Path) -> Artifact:
    """Trains and evaluates what is missing, and writes the rows as CSV and the picture.

    Args:
        request: What is to be made.
        console: Console that shows progress.
        table_file: CSV to write.
        figure_file: PNG to write.

    Raises:
        PaperError, DataError, DeviceError, WorkdirError: It cannot be made.
        Interrupted: SIGTERM or Ctrl-C came; what was trained is kept.
    """
    subject, runs = request.subject, request.runs()
    first = next(iter(runs.values()))
    sizes, missing = _data_sizes(first)
    diverged = (
        {} if missing else train_missing(list(runs.values()), console, advice="choose another --workdir")
    )
    if isinstance(subject, Table):
        made = _table(request, subject, runs)
    else:
        made = (_responses if request.name == "fig7" else _curves)(request, subject, runs)
    notes = [f"{run.workdir.name}: {reason.partition(';')[0]}" for run, reason in diverged.items()]
    caption = make_caption(request, first, sizes, *([made.remark] if made.remark else []), *notes)
    if made.csv_rows and not missing:
        for file in (table_file, figure_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_csv(table_file, made.csv_rows)
        made.draw(figure_file, caption=caption)
    return dataclasses.replace(made, caption=caption, missing=missing)


def plan(request: Request) -> Rows:
    """Returns what would be trained, by net: recipe, iterations, the paper's error, cost in multiply-adds."""
    rows = []
    for net in dict.fromkeys(net for net, _ in request.runs()):
        run = request.run(net)
        config = run.config
        options: dict[str, Any] = {"shortcut": config.model.shortcut} if config.model.shortcut else {}
        model = create_model(config.model.name, **options)
        size = 16 if request.chosen_data == DIGITS else default_image_size(config.model.name)
        macs = summarize(model, size).macs
        rows.append(
            {
                "recipe": f"{request.subject.data}:{net}",
                "iterations": config.run.steps,
                "batch_size": config.batch_size,
                "paper_top1": reported_error(net),
                "macs": macs,
                "training_macs": FORWARD_AND_BACKWARD * macs * config.batch_size * config.run.steps,
                "workdir": str(run.workdir),
            }
        )
    return rows


def _data_sizes(run: SweepRun) -> tuple[list[int], str]:
    """Returns the numbers of training and test images, or why the data is not at hand."""
    data, data_dir = run.config.data, run.config.run.data_dir
    splits = data.train_split, data.test_split
    try:
        return [len(open_encoded(str(data.source), split, data_dir=data_dir)) for split in splits], ""
    except DataError as error:
        return [], str(error)


def _table(request: Request, table: Table, runs: Runs) -> Artifact:
    """Returns a table of errors: the paper's beside ours."""
    rows = table_rows(request, table, request.rows(table), runs)
    header = ["", *(title for column in table.columns for title in (f"{column} paper", f"{column} here"))]
    lines = []
    for row in rows:
        cells = [row["name"]]
        for column in table.columns:
            cells += [format_error(row[f"paper_{column}"]), format_error(row[column], row[f"{column}_std"])]
        lines.append(cells)
    return Artifact(rows, header, lines, rows, partial(draw_table, header=header, lines=lines))


def _curves(request: Request, figure: Figure, runs: Runs) -> Artifact:
    """Returns a figure of training and test errors against iterations."""
    rows = final_rows(request, runs)
    curves = {member: curve for member, run in runs.items() if (curve := error_curve(run.records))}
    nets = dict.fromkeys(net for net, _ in curves)
    means = {net: mean_curve([curve for (of, _), curve in curves.items() if of == net]) for net in nets}
    panels = {
        title: [net for net in shown if net in means] for title, shown in request.panels(figure).items()
    }
    panels = {title: shown for title, shown in panels.items() if shown}
    draw = partial(draw_error_panels, panels=panels, curves=means)
    remark = "Dashed: training error; bold: test error"
    return Artifact(rows, *_figure_text(rows), curve_rows(request, runs), draw, remark)


def _responses(request: Request, figure: Figure, runs: Runs) -> Artifact:
    """Returns a figure of the responses of layers, of the nets of seed 0."""
    rows = final_rows(request, runs)
    analyses = {
        net: analyze_checkpoint(run.workdir, data_dir=request.data_dir)
        for (net, seed), run in runs.items()
        if run.finished and seed == 0
    }
    layers = []
    for row in rows:
        found = analyses.get(row["name"])
        deviations = found.responses.deviations if found else {}
        row["deviations"] = list(deviations.values())
        row["distances"] = list(found.responses.distances.values()) if found else []
        for number, (path, deviation) in enumerate(deviations.items(), start=1):
            layer = {"net": row["name"], "layer": number, "path": path, "deviation": deviation}
            layers.append(layer | {"data": request.chosen_data})
    examples = max((analysis.examples for analysis in analyses.values()), default=0)
    remark = f"Responses on the first {examples:,} test images, of seed 0; dashed: plain nets"
    draw = partial(draw_responses, panels=list(figure.panels), analyses=analyses)
    return Artifact(rows, *_figure_text(rows), layers, draw, remark)


def _figure_text(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """Returns header and cells of the errors of a figure's nets."""
    header = ["", "training error (%)", "test error (%)", "paper's test error (%)"]
    return header, [
        [
            row["name"],
            format_error(row["train_error"]),
            format_error(row["test_error"], row["test_error_std"]),
            format_error(row["paper_test_error"]),
        ]
        for row in rows
    ]
