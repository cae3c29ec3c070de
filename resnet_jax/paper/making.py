"""How a table or a figure is made: which runs it needs, what of them is trained, and what is written and returned."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from resnet_jax.analysis import analyze_checkpoint
from resnet_jax.data.errors import DataError
from resnet_jax.models import create_model, default_image_size, summarize
from resnet_jax.paper import PaperError
from resnet_jax.paper.drawing import draw_curves, draw_responses, draw_table
from resnet_jax.paper.reported import DIGITS, FIGURES, SINGLE, TABLES, Figure, Row, Table, reported_error
from resnet_jax.paper.results import Rows, Setting, curve_rows, final_rows, members_of, table_rows
from resnet_jax.paper.runs import PaperRun, Place, data_sizes, plan_run, train_missing

DEEPEST = "resnet1202"
"""Left out on the digits unless asked for: it takes the time of all others together, several times over."""

DEEP_PANEL = "110 and 1202 layers"
"""Of Fig. 6, the one with the deepest net."""

FORWARD_AND_BACKWARD = 3
"""Multiply-adds of a training step, in those of its forward pass."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        name: "table2" … "table6", "fig1", "fig4", "fig6", "fig7".
        data: Name of the data set; empty is the paper's.
        seeds: How many, from 0.
        budget: Share of the iterations.
        place: Where runs and data are.
        nets: Only these, by the recipe's argument; empty is all.
        deepest: Include the net of 1202 layers on the digits.
    """

    name: str
    data: str
    seeds: int
    budget: float
    place: Place
    nets: Sequence[str] = ()
    deepest: bool = False

    @property
    def subject(self) -> Table | Figure:
        """The table or the figure."""
        return (TABLES | FIGURES)[self.name]

    @property
    def chosen_data(self) -> str:
        """Name of the data set.

        Raises:
            PaperError: The table or figure cannot be made on it.
        """
        allowed = (self.subject.data, DIGITS)
        chosen = self.data or self.subject.data
        if chosen not in allowed:
            raise PaperError(f"{self.name} cannot be made on {chosen}; its data are {' or '.join(allowed)}")
        return chosen

    def plan(self, net: str, seed: int) -> PaperRun:
        """Returns a run of a net."""
        data, family = self.chosen_data, self.subject.data
        return plan_run(net, data=data, family=family, seed=seed, budget=self.budget, place=self.place)

    def check(self) -> None:
        """Raises PaperError where numbers are not those of a table or figure."""
        if self.seeds < 1:
            raise PaperError(f"--seeds is {self.seeds}; it must be a number above 0")
        if not 0 < self.budget <= 100:
            raise PaperError(
                f"--budget is {self.budget}; it must be above 0, and 1 is the whole number of iterations"
            )


@dataclasses.dataclass(frozen=True)
class Made:
    """A table or a figure.

    Attributes:
        caption: With data, budget and seeds.
        rows: What is printed, a row of the table or a net of the figure.
        missing: Why rows have no numbers of ours; empty where all have.
    """

    caption: str
    rows: Rows
    missing: str = ""


def make(request: Request, console: Console, *, table_file: Path, figure_file: Path) -> Made:
    """Trains and evaluates what is missing, and writes the rows as CSV and the picture.

    Args:
        request: What is to be made.
        console: Shows progress.
        table_file: CSV to write: the rows, of a figure its curves or its layers.
        figure_file: PNG to write.

    Raises:
        PaperError, DataError, DeviceError, WorkdirError: It cannot be made.
        Interrupted: SIGTERM or Ctrl-C came; what was trained is kept.
    """
    request.check()
    subject = request.subject
    if isinstance(subject, Table):
        rows = _chosen_rows(request, subject)
        members = [
            member for row in rows for seed in range(request.seeds) for member in members_of(row, seed)
        ]
    else:
        members = [(net, seed) for net in nets_of(request) for seed in range(request.seeds)]
    runs = {member: request.plan(*member) for member in dict.fromkeys(members)}
    if not runs:
        raise PaperError(f"{request.name} has no net to train among {', '.join(request.nets)}")
    sizes, missing = _sizes(next(iter(runs.values())))
    setting = _setting(request, runs, sizes)
    diverged = {} if missing else train_missing(list(runs.values()), console)
    notes = [f"{run.workdir.name}: {reason.partition(';')[0]}" for run, reason in diverged.items()]
    if isinstance(subject, Table):
        made = table_rows(subject, rows, runs, setting)
        caption = setting.caption(subject.title, *notes)
        if not missing:
            draw_table(figure_file, *as_text(subject.columns, made), caption=caption)
            write_csv(table_file, made)
        return Made(caption, made, missing)
    return _make_figure(
        request, subject, list(runs.values()), setting, notes, missing, table_file, figure_file
    )


def plan(request: Request) -> Rows:
    """Returns what would be run, by net: the recipe, iterations, the paper's error and the multiply-adds of the training."""
    request.check()
    return [_cost(request, net) for net in nets_of(request)]


def nets_of(request: Request) -> list[str]:
    """Returns the nets that are to be trained, by the recipe's argument, each once."""
    subject = request.subject
    if isinstance(subject, Table):
        groups = [list(row.nets) for row in _chosen_rows(request, subject)]
    else:
        groups = list(_panels(request, subject).values())
    return list(dict.fromkeys(net for nets in groups for net in nets))


def as_text(columns: Sequence[str], rows: Rows) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the cells of a table of errors: the paper's beside ours."""
    header = ["", *(title for column in columns for title in (f"{column} paper", f"{column} here"))]
    lines = []
    for row in rows:
        cells = [row["name"]]
        for column in columns:
            cells += [_error(row[f"paper_{column}"]), _error(row[column], row[f"{column}_std"])]
        lines.append(cells)
    return header, lines


def write_csv(file: Path, rows: Rows) -> None:
    """Writes rows under a header, lists with spaces between."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: " ".join(map(str, cell)) if isinstance(cell, list) else cell for name, cell in row.items()}
            for row in rows
        )


def _make_figure(
    request: Request,
    figure: Figure,
    runs: list[PaperRun],
    setting: Setting,
    notes: list[str],
    missing: str,
    table_file: Path,
    figure_file: Path,
) -> Made:
    nets = list(dict.fromkeys(run.net for run in runs))
    rows = final_rows(runs, setting, {net: reported_error(net) for net in nets})
    finished = [run for run in runs if run.finished]
    if request.name == "fig7":
        shown = [run for run in finished if run.seed == 0]
        analyses = {
            run.net: analyze_checkpoint(run.workdir, data_dir=request.place.data_dir or None) for run in shown
        }
        examples = {analysis.examples for analysis in analyses.values()}
        seen = (
            f"Responses on the first {max(examples, default=0):,} test images, of seed 0; dashed: plain nets"
        )
        caption = setting.caption(figure.title, seen, *notes)
        layers = [
            {"net": net, "layer": number, "path": path, "deviation": deviation, "data": setting.data}
            for net, analysis in analyses.items()
            for number, (path, deviation) in enumerate(analysis.responses.deviations.items(), start=1)
        ]
        for row in rows:
            found = analyses.get(row["name"])
            row["deviations"] = list(found.responses.deviations.values()) if found else []
            row["distances"] = list(found.responses.distances.values()) if found else []
        if layers:
            write_csv(table_file, layers)
            draw_responses(figure_file, list(figure.panels), analyses, caption=caption)
        return Made(caption, rows, missing)
    caption = setting.caption(figure.title, "Dashed: training error; bold: test error", *notes)
    curves = curve_rows([run for run in runs if run.records], setting) if not missing else []
    if curves:
        write_csv(table_file, curves)
        panels = {
            title: [net for net in members if net in nets]
            for title, members in _panels(request, figure).items()
        }
        draw_curves(
            figure_file, {title: found for title, found in panels.items() if found}, curves, caption=caption
        )
    return Made(caption, rows, missing)


def _chosen_rows(request: Request, table: Table) -> list[Row]:
    """Returns the rows of a table, those of other nets of the family that were named among them."""
    rows = [row for row in table.rows if not request.nets or set(row.nets) & set(request.nets)]
    known = {net for row in table.rows for net in row.nets}
    rows += [Row(net, (net,)) for net in request.nets if net not in known]
    return [
        row
        for row in rows
        if request.deepest or request.nets or DEEPEST not in row.nets or request.chosen_data != DIGITS
    ]


def _panels(request: Request, figure: Figure) -> dict[str, list[str]]:
    """Returns the panels of a figure with the nets that are wanted; on the digits those of its miniature."""
    small = request.chosen_data == DIGITS
    panels = {title: list(nets) for title, nets in figure.panels.items()}
    if request.nets or (small and not request.deepest):
        panels.pop(DEEP_PANEL, None)
    for title, begin in (("plain", "plain"), ("residual", "resnet")):
        if title in panels and small and figure.miniature:
            panels[title] = [f"{begin}{depth}" for depth in figure.miniature]
        if title in panels and request.nets:
            panels[title] = [net for net in request.nets if net.startswith(begin)]
    if request.nets:
        panels = {
            title: list(request.nets) if title not in ("plain", "residual") else nets
            for title, nets in panels.items()
        }
    return panels


def _sizes(run: PaperRun) -> tuple[tuple[int, int], str]:
    try:
        return data_sizes(run.config), ""
    except DataError as error:
        return (0, 0), str(error)


def _setting(request: Request, runs: dict[Any, PaperRun], sizes: tuple[int, int]) -> Setting:
    one, subject = next(iter(runs.values())), request.subject
    protocol = subject.protocol if isinstance(subject, Table) else SINGLE
    seeds = range(request.seeds)
    return Setting(
        request.chosen_data,
        sizes,
        one.config.run.steps,
        one.full_steps,
        request.budget,
        seeds,
        protocol,
        subject.data,
    )


def _cost(request: Request, net: str) -> dict[str, Any]:
    run = request.plan(net, 0)
    config = run.config
    model = create_model(config.model.name)
    if config.model.shortcut:
        model = create_model(config.model.name, shortcut=config.model.shortcut)
    small = request.chosen_data == DIGITS
    macs = summarize(model, 16 if small else default_image_size(config.model.name)).macs
    return {
        "recipe": f"{request.subject.data}:{net}",
        "iterations": config.run.steps,
        "batch_size": config.batch_size,
        "paper_top1": reported_error(net),
        "macs": macs,
        "training_macs": FORWARD_AND_BACKWARD * macs * config.batch_size * config.run.steps,
        "workdir": str(run.workdir),
    }


def _error(value: float | None, deviation: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" + (f" ± {deviation:.2f}" if deviation is not None else "")
