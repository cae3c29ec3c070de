"""Errors of trained runs as rows, final ones and curves, and captions that say what was done."""

from collections.abc import Mapping, Sequence
from typing import Any

from resnet_jax.evaluation.evaluate import evaluate_checkpoint
from resnet_jax.evaluation.protocols import SINGLE
from resnet_jax.files import read_json, write_json
from resnet_jax.models import create_model, default_image_size, summarize
from resnet_jax.paper.reported import MULTIPLY_ADDS, TABLE_1_SHORTCUTS, Row, Table, reported_error
from resnet_jax.paper.request import Member, Request, members_of
from resnet_jax.sweeps.errors_over_seeds import error_curve, mean_and_deviation
from resnet_jax.sweeps.sweep import SweepRun

Rows = list[dict[str, Any]]
Runs = Mapping[Member, SweepRun]

DATASET_NAMES = {"digits": "scikit-learn's digits", "cifar10": "CIFAR-10", "imagenet": "ImageNet"}


def make_caption(request: Request, run: SweepRun, sizes: Sequence[int], *remarks: str) -> str:
    """Returns title, data, budget and seeds of a table or figure, and then remarks.

    Args:
        request: What was made.
        run: One of its runs.
        sizes: Numbers of training and test images; none where the data is not at hand.
        remarks: Sentences without their full stops.
    """
    subject, chosen = request.subject, request.chosen_data
    images = "({:,} training and {:,} test images)".format(*sizes) if sizes else "not at hand"
    data = f"Data: {DATASET_NAMES[chosen]}{' ' if sizes else ', '}{images}"
    if chosen != subject.data:
        data += f", a miniature of the paper's {DATASET_NAMES[subject.data]}"
    seeds = f"seeds 0–{request.seeds - 1}, mean ± deviation (n − 1)" if request.seeds > 1 else "seed 0"
    steps, full_steps = run.config.run.steps, request.recipe(run.name).run.steps
    budget = f"Budget {request.budget:g}: {steps:,} of {full_steps:,} iterations, {seeds}"
    return ". ".join([subject.title, data, budget, f"View: {subject.protocol}", *remarks]) + "."


def table_1() -> Rows:
    """Returns Table 1 by net: parameters, multiply-adds, output sizes, and the paper's multiply-adds."""
    rows = []
    for name, reported in MULTIPLY_ADDS.items():
        shortcut = TABLE_1_SHORTCUTS.get(name, "B")
        summary = summarize(create_model(name, shortcut=shortcut), default_image_size(name))
        sizes = {
            layer.path.split("/")[0]: layer.output_shape[0]
            for layer in summary.rows
            if len(layer.output_shape) == 3
        }
        row = {
            "name": name,
            "shortcut": shortcut,
            "params": summary.params,
            "macs": summary.macs,
            "paper_macs": reported,
        }
        rows.append(row | {"output_sizes": sizes})
    return rows


def table_rows(request: Request, table: Table, rows: Sequence[Row], runs: Runs) -> Rows:
    """Returns the rows of a table: the paper's errors, and ours where the runs are finished, in percent.

    `top1` and `top5` are means over seeds of the final evaluation, `top1_std` and `top5_std` their deviations
    (n − 1), None for one seed; `paper_top1` and `paper_top5` the paper's.
    """
    made = []
    for row in rows:
        line: dict[str, Any] = {"name": row.name, "nets": list(row.nets)}
        found = [_errors(row, seed, runs, table.protocol) for seed in range(request.seeds)]
        for column in table.columns:
            complete = all(column in errors for errors in found)
            values = [errors[column] for errors in found] if complete else []
            line[f"paper_{column}"] = getattr(row, column)
            line[column], line[f"{column}_std"] = mean_and_deviation(values)
        made.append(line | {"remark": row.remark} | _setting(request, runs, table.protocol))
    return made


def curve_rows(request: Request, runs: Runs) -> Rows:
    """Returns a row for every evaluation of every run, as in `CurvePoint`."""
    return [
        {"net": net, "seed": seed, **point._asdict(), "data": request.chosen_data}
        for (net, seed), run in runs.items()
        for point in error_curve(run.records)
    ]


def final_rows(request: Request, runs: Runs) -> Rows:
    """Returns a row for every net: final training and test error over seeds, and the paper's test error."""
    rows = []
    for net in dict.fromkeys(net for net, _ in runs):
        ends = [error_curve(run.records)[-1] for run in runs.values() if run.name == net and run.finished]
        if len(ends) < request.seeds:
            ends = []
        train, _ = mean_and_deviation([end.train_error for end in ends])
        test, deviation = mean_and_deviation([end.test_error for end in ends])
        line = {"name": net, "train_error": train, "test_error": test, "test_error_std": deviation}
        rows.append(line | {"paper_test_error": reported_error(net)} | _setting(request, runs, SINGLE))
    return rows


def _setting(request: Request, runs: Runs, protocol: str) -> dict[str, Any]:
    """Returns the columns of every row that say how it was made."""
    return {
        "data": request.chosen_data,
        "iterations": next(iter(runs.values())).config.run.steps,
        "budget": request.budget,
        "seeds": request.seeds,
        "protocol": protocol,
    }


def _errors(row: Row, seed: int, runs: Runs, protocol: str) -> dict[str, float]:
    """Returns the final errors of a run, or of an ensemble, in percent; none where a run is not finished.

    Costly evaluations are kept beside the checkpoint.
    """
    members = [runs[member] for member in members_of(row, seed) if member in runs]
    if len(members) < max(1, len(row.nets)) or not all(run.finished for run in members):
        return {}
    if len(members) == 1 and protocol == SINGLE:
        last = members[0].records[-1]
        return {name: 100 * (1 - last[f"test_{name}"]) for name in ("top1", "top5") if f"test_{name}" in last}
    names = [run.workdir.name for run in members]
    kept = members[0].workdir / f"evaluated_{protocol}{'_ensemble' if len(members) > 1 else ''}.json"
    found = read_json(kept) if kept.exists() else {}
    if found.get("of") != names:
        found = {"of": names, **evaluate_checkpoint([run.workdir for run in members], protocol=protocol)}
        write_json(kept, found)
    return {name: 100 * (1 - found[name]) for name in ("top1", "top5") if name in found}
