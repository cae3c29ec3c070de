"""The page: its sections, each of which says in one line what it lacks, and its head."""

import dataclasses
import datetime
import importlib.resources
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from resnet_jax.analysis import Analysis
from resnet_jax.report.chart import Chart, draw_chart
from resnet_jax.report.markup import Markup, element, join
from resnet_jax.report.mistake_figures import draw_mistakes
from resnet_jax.report.mistakes import Mistakes
from resnet_jax.report.object_figures import draw_object_mistakes
from resnet_jax.report.object_mistakes import ObjectMistakes
from resnet_jax.report.run_records import RunRecord
from resnet_jax.report.series import POINTS, Series
from resnet_jax.report.tables import (
    defaults_table,
    differences_table,
    metric_names,
    recipes_table,
    results_table,
    run_cards,
)
from resnet_jax.report.wall_time_bars import wall_time_bars


@dataclasses.dataclass(frozen=True)
class PageSection:
    """A part of the page; its text ends in notes on what is missing."""

    name: str
    title: str
    content: Markup


def write_page(
    runs: Sequence[RunRecord],
    mistakes: Sequence[Mistakes | ObjectMistakes | str],
    analyses: Sequence[Analysis | str],
    *,
    now: datetime.datetime,
) -> str:
    """Returns the HTML of a page about runs.

    Args:
        runs: On the page.
        mistakes: Mistakes of every run, or why there are none.
        analyses: Results of the analysis of every run, or why there are none.
        now: When it is written.
    """
    sections = [
        PageSection("results", "Results", join(run_cards(runs), results_table(runs))),
        _mistakes(runs, mistakes),
        _curves(runs),
        _recipe(runs),
        _speed(runs),
        _wall_time(runs),
        _responses(runs, analyses),
    ]
    title = f"{', '.join(run.name for run in runs[:3])}{' and others' if len(runs) > 3 else ''}"
    links = (element("li", element("a", section.title, href=f"#{section.name}")) for section in sections)
    count = "One run" if len(runs) == 1 else f"{len(runs)} runs"
    body = join(
        element("a", "To the results", href="#results", class_="skip"),
        element(
            "header",
            element("h1", title),
            element("p", f"{count}. Written {now:%Y-%m-%d %H:%M} UTC by resnet-jax.", class_="note"),
            element("nav", element("ul", *links), aria_label="Sections"),
        ),
        element(
            "main",
            *(element("section", element("h2", one.title), one.content, id=one.name) for one in sections),
        ),
        element("footer", *(element("p", text) for text in _remarks(runs))),
        element("script", _asset("page.js")),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} – report"),
        element("style", _asset("page.css")),
    )
    return f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n"


def _curves(runs: Sequence[RunRecord]) -> PageSection:
    def both(field: str, *, error: bool = False) -> list[Series]:
        kinds = (("training", field, False), ("test", f"test_{field}", True))
        return [run.series(name, kind, bold=bold, error=error) for run in runs for kind, name, bold in kinds]

    charts = [
        Chart("Error", both("top1", error=True), as_percent=True),
        Chart("Loss", both("loss")),
        *(Chart(name.replace("_", " "), both(name)) for name in metric_names(runs)),
        Chart("Learning rate", [run.series("learning_rate") for run in runs], smooth=False),
        Chart("Norm of the gradient", [run.series("gradient_norm") for run in runs]),
    ]
    drawn = [figure for figure in map(draw_chart, charts) if figure]
    if not drawn:
        return PageSection("curves", "Curves", _note("There are no curves: no step is recorded."))
    switch = element(
        "fieldset",
        element("legend", "Scale:"),
        *(
            element(
                "label",
                element("input", type="radio", name="scale", id=name, checked=name == "linear"),
                f" {name}arithmic" if name == "log" else f" {name}",
            )
            for name in ("linear", "log")
        ),
        class_="switch",
    )
    how = "Bold: test. Thin: training, the mean of the fiftieth of the records around each step"
    how += "; faint: the records themselves." if len(runs) <= 2 else "."
    return PageSection("curves", "Curves", join(_note(how), switch, element("div", *drawn, class_="charts")))


def _recipe(runs: Sequence[RunRecord]) -> PageSection:
    parts: list[Markup | None] = []
    if len(runs) == 1:
        changed = defaults_table(runs[0])
        parts += [
            _note("What is not at its default:") if changed else _note("Every field is at its default."),
            changed,
        ]
    else:
        differences = differences_table(runs)
        parts += [
            _note("In what the runs differ; fields under run are operation, all others recipe:"),
            differences,
        ]
        if not differences:
            parts = [_note("The runs do not differ in any field.")]
    every = element("details", element("summary", "All fields"), recipes_table(runs))
    return PageSection("recipe", "Recipe" if len(runs) == 1 else "Recipes", join(*parts, every))


def _speed(runs: Sequence[RunRecord]) -> PageSection:
    charts = [
        Chart("Images per second", [run.series("images_per_second") for run in runs], log=False),
        Chart(
            "Time spent waiting for input",
            [run.series("input_share") for run in runs],
            as_percent=True,
            log=False,
            text="The share of the time between two records; near 0 where reading keeps up.",
        ),
    ]
    drawn = [figure for figure in map(draw_chart, charts) if figure]
    content = (
        element("div", *drawn, class_="charts") if drawn else _note("Nothing is known: no step is recorded.")
    )
    return PageSection("speed", "Throughput and input", content)


def _wall_time(runs: Sequence[RunRecord]) -> PageSection:
    bars = wall_time_bars(runs)
    if not bars:
        return PageSection("wall-time", "Goodput", _note("Nothing is known: no record holds the wall time."))
    about = _note(
        "Goodput is the share of the time that the run was up, over all starts, in which it computed steps "
        "that count. Lost steps were made again after a kill. Down is the time from the last record of a "
        "process to the next start, which is no part of the shares."
    )
    partly = [
        _note(f"{run.name}: measured from step {run.unmeasured:,} on; older records hold no wall time.")
        for run in runs
        if run.wall_time and run.unmeasured
    ]
    unknown = _left_out(runs, [run.wall_time or "no record holds the wall time" for run in runs])
    return PageSection("wall-time", "Goodput", join(about, bars, *partly, *unknown))


def _mistakes(runs: Sequence[RunRecord], mistakes: Sequence[Mistakes | ObjectMistakes | str]) -> PageSection:
    parts = []
    for run, found in zip(runs, mistakes, strict=True):
        if isinstance(found, Mistakes):
            parts += [element("h3", run.name), draw_mistakes(found, run.name)]
        elif isinstance(found, ObjectMistakes):
            parts += [element("h3", run.name), draw_object_mistakes(found, run.name)]
    return PageSection("mistakes", "Mistakes", join(*parts, *_left_out(runs, mistakes)))


def _responses(runs: Sequence[RunRecord], analyses: Sequence[Analysis | str]) -> PageSection:
    found = [(run, one) for run, one in zip(runs, analyses, strict=True) if isinstance(one, Analysis)]

    def each(values: Callable[[Analysis], Iterable[float]]) -> list[Series]:
        arrays = [(run, np.array(list(values(one)))) for run, one in found]
        finite = [(run, array, np.flatnonzero(np.isfinite(array))) for run, array in arrays]
        return [
            Series(run.name, run.number, "", places + 1, array[places], bold=True)
            for run, array, places in finite
        ]

    def names(of: Callable[[Analysis], Iterable[str]]) -> tuple[str, ...]:
        return tuple(of(found[0][1])) if len(found) == 1 else ()

    charts = [
        Chart(
            "In the order of the layers",
            each(lambda one: one.responses.deviations.values()),
            log=False,
            smooth=False,
            x_name="layer",
            x_labels=names(lambda one: one.responses.deviations),
        ),
        Chart(
            "From the largest to the smallest",
            each(lambda one: sorted(one.responses.deviations.values(), reverse=True)),
            log=False,
            smooth=False,
            x_name="rank",
        ),
        Chart(
            "Distance of each block from the identity",
            each(lambda one: one.responses.distances.values()),
            log=False,
            smooth=False,
            x_name="block",
            x_labels=names(lambda one: one.responses.distances),
            text="‖F(x)‖ / ‖x‖, where x goes into the block and F(x) is added to its shortcut.",
        ),
    ]
    drawn = [figure for figure in map(draw_chart, charts) if figure]
    text = (
        "Standard deviation of every 3×3 layer's output after batch normalization, before the ReLU or the "
        "addition"
    )
    images = (
        f"; over the first {found[0][1].examples:,} images of the test split, newest checkpoint."
        if found
        else ""
    )
    grid = element("div", *drawn, class_="charts") if drawn else None
    return PageSection(
        "responses",
        "Responses of the layers",
        join(_note(text + images) if drawn else None, grid, *_left_out(runs, analyses)),
    )


def _left_out(runs: Sequence[RunRecord], found: Sequence[object]) -> list[Markup]:
    return [
        _note(f"{run.name} is left out: {why}.")
        for run, why in zip(runs, found, strict=True)
        if isinstance(why, str)
    ]


def _remarks(runs: Sequence[RunRecord]) -> list[str]:
    remarks = []
    if any(len(run.records) > POINTS for run in runs):
        remarks.append(
            f"Curves of more than {POINTS} records are thinned: their ends and extremes stay. All records "
            "are in the metrics.jsonl of the workdirs."
        )
    remarks += [
        f"{run.name}: {run.overlapping:,} records were written twice, before and after the run was resumed; "
        "the later ones count."
        for run in runs
        if run.overlapping
    ]
    return remarks


def _note(text: str) -> Markup:
    return element("p", text, class_="note")


def _asset(name: str) -> Markup:
    """Returns a file that stands beside this one, which holds nothing that would end its element."""
    return Markup(importlib.resources.files(__package__).joinpath(name).read_text())
