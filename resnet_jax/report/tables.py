"""The tables of a page: how the runs ended, and in what their recipes differ."""

import datetime
import json
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from resnet_jax.report.axes import number, percent
from resnet_jax.report.chart import scrolling, swatch
from resnet_jax.report.markup import Markup, element
from resnet_jax.report.run_records import RunRecord
from resnet_jax.training.config import base_config, flat_fields

NONE = "–"


def results_table(runs: Sequence[RunRecord]) -> Markup:
    """Returns a column for each run: accuracy, loss, examples, parameters, steps, images a second."""
    rows: list[tuple[str, Callable[[RunRecord], str]]] = [
        ("State", lambda run: run.status),
        ("Net", lambda run: run.config.model.name),
        ("Data", lambda run: run.config.data.source or "not known"),
        ("Test accuracy", lambda run: _share(run, "test_top1")),
        ("Test accuracy, best", _best),
        ("Test accuracy, top 5", lambda run: _share(run, "test_top5")),
        *(
            (f"Test {name.replace('_', ' ')}", partial(_value, field=f"test_{name}"))
            for name in metric_names(runs)
        ),
        ("Test loss", lambda run: _value(run, "test_loss")),
        ("Test images", lambda run: _value(run, "test_examples")),
        (
            "Training accuracy (last tenth)",
            lambda run: _last_tenth(run, "top1", percent),
        ),
        ("Training loss (last tenth)", lambda run: _last_tenth(run, "loss", number)),
        ("Parameters", lambda run: NONE if run.parameters is None else f"{run.parameters:,}"),
        ("Steps", lambda run: f"{run.step:,}" if run.records else NONE),
        ("Images seen", lambda run: f"{run.step * run.config.batch_size:,}" if run.records else NONE),
        ("Images per second", lambda run: _median(run, "images_per_second")),
        ("Last record", _when),
    ]
    body = [
        element("tr", element("th", name, scope="row"), *(element("td", tell(run)) for run in runs))
        for name, tell in rows
        if any(tell(run) != NONE for run in runs)
    ]
    return scrolling(element("table", heading_row(runs), element("tbody", *body)), "Results")


def run_cards(runs: Sequence[RunRecord]) -> Markup:
    """Returns the test accuracy of every run, in large figures."""
    cards = (
        element(
            "li",
            element("p", swatch(run.number, bold=True), " ", run.name),
            element("p", *_headline(run)),
            element(
                "p",
                f"{run.config.model.name} on {run.config.data.source or 'unknown data'}, {run.status}",
                class_="note",
            ),
        )
        for run in runs
    )
    return element("ul", *cards, class_="cards")


def _headline(run: RunRecord) -> tuple[Markup, str]:
    """Returns the test accuracy of a run, or the first metric of its own task, and what it is."""
    if run.last("test_top1") is None and run.metrics:
        name = run.metrics[0]
        return element("b", _value(run, f"test_{name}")), f" test {name.replace('_', ' ')}"
    known = run.last("test_top1") is not None
    return element("b", _share(run, "test_top1")), " test accuracy" if known else " not evaluated"


def metric_names(runs: Sequence[RunRecord]) -> list[str]:
    """Returns the names of the test metrics that tasks of their own have."""
    return list(dict.fromkeys(name for run in runs for name in run.metrics))


def differences_table(runs: Sequence[RunRecord]) -> Markup | None:
    """Returns the fields in which the runs differ, a column for each run; None where they differ in none."""
    names = [name for name in field_paths(runs) if len({_json(run.fields.get(name)) for run in runs}) > 1]
    if not names:
        return None
    return scrolling(_fields_table(runs, names), "Differences between the recipes")


def defaults_table(run: RunRecord) -> Markup | None:
    """Returns the fields of a run that are not at their defaults; None where there is none."""
    defaults = flat_fields(base_config())
    names = [name for name in field_paths([run]) if _json(run.fields[name]) != _json(defaults.get(name))]
    return (
        scrolling(_fields_table([run], names), f"Fields of {run.name} that are not at their defaults")
        if names
        else None
    )


def recipes_table(runs: Sequence[RunRecord]) -> Markup:
    """Returns every field of every run."""
    return scrolling(_fields_table(runs, field_paths(runs)), "All fields")


def field_paths(runs: Sequence[RunRecord]) -> list[str]:
    """Returns the paths of the fields of any of the runs, the recipe's before the operation's."""
    names = {name for run in runs for name in run.fields}
    return sorted(names, key=lambda name: (name.startswith("run."), name.count(".") > 0, name))


def _fields_table(runs: Sequence[RunRecord], names: Sequence[str]) -> Markup:
    rows = [
        element(
            "tr",
            element("th", element("code", name), scope="row"),
            *(element("td", _json(run.fields[name]) if name in run.fields else NONE) for run in runs),
        )
        for name in names
    ]
    return element("table", heading_row(runs), element("tbody", *rows))


def heading_row(runs: Sequence[RunRecord]) -> Markup:
    """Returns the head of a table that has a column for each run."""
    """Returns the head of a table that has a column for each run."""
    return element(
        "thead",
        element(
            "tr",
            element("td"),
            *(element("th", swatch(run.number), " ", run.name, scope="col") for run in runs),
        ),
    )


def _json(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _share(run: RunRecord, field: str) -> str:
    value = run.last(field)
    return NONE if value is None else percent(value)


def _value(run: RunRecord, field: str) -> str:
    value = run.last(field)
    return NONE if value is None else number(value)


def _best(run: RunRecord) -> str:
    found = run.series("test_top1")
    if not len(found):
        return NONE
    place = int(np.argmax(found.values))
    return f"{percent(found.values[place])} at step {found.steps[place]:,}"


def _last_tenth(run: RunRecord, field: str, write: Callable[[float], str]) -> str:
    values = run.series(field).values
    return write(float(values[-max(1, len(values) // 10) :].mean())) if len(values) else NONE


def _median(run: RunRecord, field: str) -> str:
    values = run.series(field).values
    return number(float(np.median(values))) if len(values) else NONE


def _when(run: RunRecord) -> str:
    time = run.last("time")
    return (
        NONE if time is None else f"{datetime.datetime.fromtimestamp(time, datetime.UTC):%Y-%m-%d %H:%M} UTC"
    )
