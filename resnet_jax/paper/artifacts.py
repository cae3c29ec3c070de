"""Tables and figures: trained where runs are missing, written as CSV and as a picture, and returned as rows."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from resnet_jax.analysis import analyze_checkpoint
from resnet_jax.data.choices import DIGITS
from resnet_jax.data.datasets import open_encoded
from resnet_jax.data.errors import DataError
from resnet_jax.evaluation.protocols import SINGLE
from resnet_jax.models import create_model, default_image_size, summarize
from resnet_jax.models.resnet import ResNet
from resnet_jax.paper.drawing import draw_error_panels, draw_responses, draw_table
from resnet_jax.paper.error_rows import Rows, Setting, curve_rows, final_rows, table_rows
from resnet_jax.paper.reported import Figure, Table, reported_error
from resnet_jax.paper.request import (
    Member,
    Request,
    chosen_panels,
    chosen_rows,
    full_recipe,
    nets_of,
)
from resnet_jax.sweeps.errors_over_seeds import error_curve, format_error, mean_curve
from resnet_jax.sweeps.outputs import write_csv
from resnet_jax.sweeps.sweep import SweepRun, check_seeds, train_missing

FORWARD_AND_BACKWARD = 3
"""Multiply-adds of a training step, in those of its forward pass."""

Runs = Mapping[Member, SweepRun]


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A table or a figure.

    Attributes:
        caption: With data, budget and seeds.
        rows: A row of the table or a net of the figure each.
        header, lines: The rows as text.
        missing: Why rows have no numbers of ours; empty where all have.
    """

    caption: str
    rows: Rows
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    missing: str = ""


@dataclasses.dataclass(frozen=True)
class _Content:
    """Rows and their text as in `Artifact`, a remark of the caption, and what is written: rows as CSV and a picture."""

    rows: Rows
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    written: Rows
    draw: Callable[..., None]
    remark: tuple[str, ...] = ()


def make(request: Request, console: Console, *, table_file: Path, figure_file: Path) -> Artifact:
    """Trains and evaluates what is missing, and writes the rows as CSV and the picture.

    Args:
        request: What is to be made.
        console: Where progress is shown.
        table_file: CSV to write: the rows, of a figure its curves or its layers.
        figure_file: PNG to write.

    Raises:
        PaperError, DataError, DeviceError, WorkdirError: It cannot be made.
        Interrupted: SIGTERM or Ctrl-C came; what was trained is kept.
    """
    subject, runs = request.subject, request.runs()
    setting, missing = _setting(request, next(iter(runs.values())))
    advice = "choose another --workdir"
    diverged = {} if missing else train_missing(list(runs.values()), console, advice=advice)
    if isinstance(subject, Table):
        content = _table(request, subject, runs, setting)
    elif request.name == "fig7":
        content = _responses(request, subject, runs, setting)
    else:
        content = _curves(request, subject, runs, setting)
    notes = [f"{run.workdir.name}: {reason.partition(';')[0]}" for run, reason in diverged.items()]
    caption = setting.caption(subject.title, *content.remark, *notes)
    if content.written and not missing:
        for file in (table_file, figure_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_csv(table_file, content.written)
        content.draw(figure_file, caption=caption)
    return Artifact(caption, content.rows, content.header, content.lines, missing)


def plan(request: Request) -> Rows:
    """Returns what would be run, by net: the recipe, iterations, the paper's error and the multiply-adds of the training."""
    check_seeds(request.seeds)
    rows = []
    for net in nets_of(request):
        run = request.run(net, 0)
        config = run.config
        options: dict[str, Any] = {"shortcut": config.model.shortcut} if config.model.shortcut else {}
        model = create_model(config.model.name, **options)
        model = model.clone(scan=True) if isinstance(model, ResNet) else model
        small = request.chosen_data == DIGITS
        macs = summarize(model, 16 if small else default_image_size(config.model.name)).macs
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


def _setting(request: Request, run: SweepRun) -> tuple[Setting, str]:
    """Returns the setting of all runs, from one of them, and why the data is not at hand; empty where it is."""
    config, subject = run.config, request.subject
    sizes, missing = [0, 0], ""
    try:
        sizes = [
            len(open_encoded(str(config.data.source), split, data_dir=config.run.data_dir))
            for split in (config.data.train_split, config.data.test_split)
        ]
    except DataError as error:
        missing = str(error)
    setting = Setting(
        request.chosen_data,
        (sizes[0], sizes[1]),
        config.run.steps,
        full_recipe(run.name, data=request.chosen_data, family=subject.data).run.steps,
        request.budget,
        range(request.seeds),
        subject.protocol if isinstance(subject, Table) else SINGLE,
        subject.data,
    )
    return setting, missing


def _table(request: Request, table: Table, runs: Runs, setting: Setting) -> _Content:
    """Returns a table of errors: the paper's beside ours."""
    rows = table_rows(table, chosen_rows(request, table), runs, setting)
    header = ["", *(title for column in table.columns for title in (f"{column} paper", f"{column} here"))]
    lines = []
    for row in rows:
        cells = [row["name"]]
        for column in table.columns:
            cells += [format_error(row[f"paper_{column}"]), format_error(row[column], row[f"{column}_std"])]
        lines.append(cells)
    return _Content(rows, header, lines, rows, partial(draw_table, header=header, lines=lines))


def _curves(request: Request, figure: Figure, runs: Runs, setting: Setting) -> _Content:
    """Returns a figure of training and test errors against iterations."""
    rows = final_rows(list(runs.values()), setting)
    by_net = {
        row["name"]: [error_curve(runs[row["name"], seed].records) for seed in setting.seeds] for row in rows
    }
    means = {net: mean_curve(found) for net, curves in by_net.items() if (found := [c for c in curves if c])}
    panels = {
        title: [net for net in nets if net in means] for title, nets in chosen_panels(request, figure).items()
    }
    draw = partial(
        draw_error_panels, panels={title: nets for title, nets in panels.items() if nets}, curves=means
    )
    remark = "Dashed: training error; bold: test error"
    return _Content(rows, *_figure_text(rows), curve_rows(list(runs.values()), setting), draw, (remark,))


def _responses(request: Request, figure: Figure, runs: Runs, setting: Setting) -> _Content:
    """Returns a figure of the responses of layers, of the nets of seed 0."""
    rows = final_rows(list(runs.values()), setting)
    data_dir = request.place.data_dir or None
    analyses = {
        run.name: analyze_checkpoint(run.workdir, data_dir=data_dir)
        for run in runs.values()
        if run.finished and run.config.seed == 0
    }
    layers = []
    for row in rows:
        found = analyses.get(row["name"])
        deviations = found.responses.deviations if found else {}
        row["deviations"] = list(deviations.values())
        row["distances"] = list(found.responses.distances.values()) if found else []
        for number, (path, deviation) in enumerate(deviations.items(), start=1):
            place = {"net": row["name"], "layer": number, "path": path}
            layers.append(place | {"deviation": deviation, "data": setting.data})
    examples = max((analysis.examples for analysis in analyses.values()), default=0)
    remark = f"Responses on the first {examples:,} test images, of seed 0; dashed: plain nets"
    draw = partial(draw_responses, panels=list(figure.panels), analyses=analyses)
    return _Content(rows, *_figure_text(rows), layers, draw, (remark,))


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
