"""Errors of trained runs as rows: final ones of a table's rows over seeds, curves; and captions that say what was done."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from resnet_jax.evaluation.evaluate import evaluate_checkpoint
from resnet_jax.evaluation.protocols import SINGLE
from resnet_jax.files import read_json, write_json
from resnet_jax.models import create_model, default_image_size, summarize
from resnet_jax.paper.reported import MULTIPLY_ADDS, TABLE_1_SHORTCUTS, Row, Table, reported_error
from resnet_jax.paper.request import Member, members_of
from resnet_jax.sweeps.errors_over_seeds import error_curve, mean_and_deviation
from resnet_jax.sweeps.sweep import SweepRun

Rows = list[dict[str, Any]]

DATASET_NAMES = {"digits": "scikit-learn's digits", "cifar10": "CIFAR-10", "imagenet": "ImageNet"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a table or a figure was made with, for its caption and its rows.

    Attributes:
        data: Name of the data set.
        sizes: Training and test images; zeros where the data is not at hand.
        steps, full_steps: Iterations, and those at budget 1.
        budget: Their ratio, as asked for.
        seeds: Of the runs.
        protocol: Of the evaluation.
        reported: The paper's data set.
    """

    data: str
    sizes: tuple[int, int]
    steps: int
    full_steps: int
    budget: float
    seeds: Sequence[int]
    protocol: str
    reported: str

    def caption(self, title: str, *notes: str) -> str:
        """Returns data, budget and seeds after a title, and before notes."""
        train, test = self.sizes
        data = f"Data: {DATASET_NAMES[self.data]}" + (
            f" ({train:,} training and {test:,} test images)" if train else ", not at hand"
        )
        miniature = (
            f", a miniature of the paper's {DATASET_NAMES[self.reported]}"
            if self.data != self.reported
            else ""
        )
        seeds = (
            f"seed {self.seeds[0]}"
            if len(self.seeds) == 1
            else f"seeds 0–{self.seeds[-1]}, mean ± deviation (n − 1)"
        )
        budget = f"Budget {self.budget:g}: {self.steps:,} of {self.full_steps:,} iterations, {seeds}"
        return ". ".join([title, data + miniature, budget, f"View: {self.protocol}", *notes]) + "."

    def columns(self) -> dict[str, Any]:
        """Returns what every row tells of the setting."""
        return {
            "data": self.data,
            "iterations": self.steps,
            "budget": self.budget,
            "seeds": len(self.seeds),
            "protocol": self.protocol,
        }


def table_1() -> Rows:
    """Returns Table 1 by net: parameters, multiply-adds and output sizes as computed, and the paper's multiply-adds."""
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


def table_rows(table: Table, rows: Sequence[Row], runs: Mapping[Member, SweepRun], setting: Setting) -> Rows:
    """Returns the rows of a table: the paper's errors, and ours where the runs are finished, in percent.

    `top1` and `top5` are means over seeds of the final evaluation, `top1_std` and `top5_std` their deviations (n − 1), None for one
    seed; `paper_top1` and `paper_top5` the paper's.
    """
    made = []
    for row in rows:
        line: dict[str, Any] = {"name": row.name, "nets": list(row.nets)}
        found = [_errors(row, seed, runs, setting.protocol) for seed in setting.seeds]
        for column in table.columns:
            complete = all(column in errors for errors in found)
            values = [errors[column] for errors in found] if complete else []
            line[f"paper_{column}"] = getattr(row, column)
            line[column], line[f"{column}_std"] = mean_and_deviation(values)
        made.append(line | {"remark": row.remark} | setting.columns())
    return made


def curve_rows(runs: Sequence[SweepRun], setting: Setting) -> Rows:
    """Returns a row for every evaluation of every run: step, the training error since the evaluation before it, the test error."""
    return [
        {"net": run.name, "seed": run.config.seed, **point._asdict(), "data": setting.data}
        for run in runs
        for point in error_curve(run.records)
    ]


def final_rows(runs: Sequence[SweepRun], setting: Setting) -> Rows:
    """Returns a row for every net: its final training and test error over seeds, and the paper's test error."""
    rows = []
    for net in dict.fromkeys(run.name for run in runs):
        ends = [error_curve(run.records)[-1] for run in runs if run.name == net and run.finished]
        if len(ends) < len(setting.seeds):
            ends = []
        train, _ = mean_and_deviation([end.train_error for end in ends])
        test, deviation = mean_and_deviation([end.test_error for end in ends])
        line = {"name": net, "train_error": train, "test_error": test, "test_error_std": deviation}
        rows.append(line | {"paper_test_error": reported_error(net)} | setting.columns())
    return rows


def _errors(row: Row, seed: int, runs: Mapping[Member, SweepRun], protocol: str) -> dict[str, float]:
    """Returns the errors of the last checkpoint of a run, or of an ensemble, in percent; none where a run is not finished.

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
