"""What trained runs come to: final errors of a table's rows over seeds, curves, and the captions that say what was done."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_jax.evaluation.evaluate import evaluate_checkpoint
from resnet_jax.files import read_json, write_json
from resnet_jax.models import create_model, default_image_size, summarize
from resnet_jax.paper.reported import CIFAR10, DIGITS, MULTIPLY_ADDS, SINGLE, TABLE_1_SHORTCUTS, Row, Table
from resnet_jax.paper.runs import PaperRun

Rows = list[dict[str, Any]]

NAMES = {DIGITS: "scikit-learn's digits", CIFAR10: "CIFAR-10", "imagenet": "ImageNet"}


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
        data = f"Data: {NAMES[self.data]}" + (
            f" ({train:,} training and {test:,} test images)" if train else ", not at hand"
        )
        miniature = (
            f", a miniature of the paper's {NAMES[self.reported]}" if self.data != self.reported else ""
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


def table_rows(
    table: Table, rows: Sequence[Row], runs: dict[tuple[str, int], PaperRun], setting: Setting
) -> Rows:
    """Returns the rows of a table: the paper's errors, and ours where the runs are finished, in per cent.

    `top1` and `top5` are means over seeds of the final evaluation, `top1_std` and `top5_std` their deviations (n − 1), None for one
    seed; `paper_top1` and `paper_top5` the paper's.
    """
    made = []
    for row in rows:
        line: dict[str, Any] = {"name": row.name, "nets": list(row.nets)}
        found = [
            errors
            for seed in setting.seeds
            if (errors := _errors(_members(row, seed, runs), setting.protocol))
        ]
        for column in table.columns:
            values = [errors[column] for errors in found if column in errors]
            complete = len(values) == len(setting.seeds)
            line[f"paper_{column}"] = getattr(row, column)
            line[column] = float(np.mean(values)) if complete else None
            line[f"{column}_std"] = float(np.std(values, ddof=1)) if complete and len(values) > 1 else None
        made.append(line | {"remark": row.remark} | setting.columns())
    return made


def members_of(row: Row, seed: int) -> list[tuple[str, int]]:
    """Returns nets and seeds that a row needs: of a net that an ensemble has twice, the second has a seed 1,000 higher."""
    return [(net, seed + 1000 * row.nets[:index].count(net)) for index, net in enumerate(row.nets)]


def curve_rows(runs: Sequence[PaperRun], setting: Setting) -> Rows:
    """Returns a row for every evaluation of every run: step, the training error since the evaluation before it, the test error."""
    rows = []
    for run in runs:
        for step, train, test in curve(run):
            line = {"net": run.net, "seed": run.seed, "step": step, "train_error": train, "test_error": test}
            rows.append(line | {"data": setting.data})
    return rows


def curve(run: PaperRun) -> list[tuple[int, float, float]]:
    """Returns of every evaluation the step, the mean training error since the one before, and the test error, in per cent."""
    points, since = [], []
    for record in run.records:
        since.append(100 * (1 - record["top1"]))
        if "test_top1" in record:
            points.append((int(record["step"]), float(np.mean(since)), 100 * (1 - record["test_top1"])))
            since = []
    return points


def final_rows(runs: Sequence[PaperRun], setting: Setting, paper: dict[str, float | None]) -> Rows:
    """Returns a row for every net: its final training and test error over seeds, and the paper's test error."""
    rows = []
    for net in dict.fromkeys(run.net for run in runs):
        ends = [curve(run)[-1] for run in runs if run.net == net and run.finished]
        line: dict[str, Any] = {"name": net, "train_error": None, "test_error": None, "test_error_std": None}
        if len(ends) == len(setting.seeds):
            _, train, test = np.array(ends).T
            line |= {"train_error": float(train.mean()), "test_error": float(test.mean())}
            line["test_error_std"] = float(test.std(ddof=1)) if len(ends) > 1 else None
        rows.append(line | {"paper_test_error": paper.get(net)} | setting.columns())
    return rows


def _members(row: Row, seed: int, runs: dict[tuple[str, int], PaperRun]) -> list[PaperRun]:
    members = [runs[member] for member in members_of(row, seed) if member in runs]
    return (
        members if members and len(members) == len(row.nets) and all(run.finished for run in members) else []
    )


def _errors(members: list[PaperRun], protocol: str) -> dict[str, float]:
    """Returns the errors of the last checkpoint of a run, or of an ensemble, in per cent; costly ones are kept beside it."""
    if not members:
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
