"""A run as its workdir records it: config, metrics, checkpoints; live, resumed or imported."""

import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from resnet_jax.report.series import Series
from resnet_jax.training.checkpoints import CheckpointError, read_checkpoint, steps_in
from resnet_jax.training.config import Config, flat_fields
from resnet_jax.training.logging import Record, read_metrics
from resnet_jax.training.wall_time import WALL_TIME_FIELDS, WallTime, read_wall_time
from resnet_jax.training.workdir import read_config

PARAMS = "params/"
CLASSIFICATION = ("test_loss", "test_top1", "test_top5", "test_examples")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run as its workdir has it.

    Attributes:
        workdir: Path or URL.
        name: Name on the page, which no other run there has.
        number: Number of the run on the page, from 0.
        config: Recipe and operation.
        records: Records of metrics.jsonl, every step once, rising.
        overlapping: Records that a later one of the same or an earlier step stands for.
        checkpoint: Step of the newest; None where there is none.
        parameters: Number of trained parameters; None without a checkpoint.
        classes: Number of classes of the network; None without a checkpoint.
        wall_time: How the time of the run divides; None where no record has it.
        note: Why the checkpoint could not be read; empty where it could.
    """

    workdir: str
    name: str
    number: int
    config: Config
    records: list[Record]
    overlapping: int
    checkpoint: int | None
    parameters: int | None
    classes: int | None
    wall_time: WallTime | None
    note: str

    @functools.cached_property
    def fields(self) -> dict[str, object]:
        """Values of the config by path."""
        return flat_fields(self.config)

    @property
    def imported(self) -> bool:
        return not self.config.data.source

    @functools.cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of test metrics that a task of its own has, without `test_`."""
        names = dict.fromkeys(name for record in self.records for name in record if name.startswith("test_"))
        return tuple(name.removeprefix("test_") for name in names if name not in CLASSIFICATION)

    @property
    def step(self) -> int:
        """The last step that is recorded."""
        return int(self.records[-1]["step"]) if self.records else 0

    @property
    def status(self) -> str:
        """How far the run is, in words."""
        if self.imported:
            return "imported weights, not trained here"
        steps = self.config.run.steps
        return "complete" if self.step >= steps else f"at step {self.step:,} of {steps:,}"

    @property
    def unmeasured(self) -> int:
        """Last step whose record holds no wall time, as an older version wrote it; 0 where there is none."""
        return max(
            (int(one["step"]) for one in self.records if not one.keys() >= WALL_TIME_FIELDS), default=0
        )

    def series(self, field: str, kind: str = "", *, bold: bool = False, error: bool = False) -> Series:
        """Returns a field of the records by step, those left out that lack it or where it is not finite.

        Args:
            field: Its name.
            kind: What the series is called.
            bold: Drawn bold.
            error: Return 1 less the field: an error in place of an accuracy.
        """
        pairs = [(record["step"], record[field]) for record in self.records if _is_number(record.get(field))]
        steps, values = (
            np.array([step for step, _ in pairs], int),
            np.array([value for _, value in pairs], float),
        )
        return Series(self.name, self.number, kind, steps, 1 - values if error else values, bold)

    def last(self, field: str) -> float | None:
        """Returns the newest value of a field; None where no record has it."""
        return next(
            (record[field] for record in reversed(self.records) if _is_number(record.get(field))), None
        )


def read_runs(workdirs: Sequence[str]) -> list[RunRecord]:
    """Returns the runs of workdirs, in order.

    Raises:
        WorkdirError: One is not a run's.
    """
    names = distinct_names(workdirs)
    return [
        _read_run(workdir, name, number)
        for number, (workdir, name) in enumerate(zip(workdirs, names, strict=True))
    ]


def _read_run(workdir: str, name: str, number: int) -> RunRecord:
    found = read_metrics(workdir)
    records = each_step_once(found)
    steps = steps_in(workdir)
    parameters, classes, note = None, None, "" if steps else "there is no checkpoint"
    if steps:
        try:
            checkpoint = read_checkpoint(workdir)
            trained = [array.size for path, array in checkpoint.arrays.items() if path.startswith(PARAMS)]
            parameters, classes = sum(trained), checkpoint.model["num_classes"]
        except CheckpointError as error:
            note = str(error)
    newest = steps[-1] if steps and not note else None
    return RunRecord(
        workdir,
        name,
        number,
        read_config(workdir),
        records,
        len(found) - len(records),
        newest,
        parameters,
        classes,
        read_wall_time(workdir, records),
        note,
    )


def each_step_once(records: Sequence[object]) -> list[Record]:
    """Returns the records with rising steps; after resuming from an earlier step, the later ones count."""
    kept: list[Record] = []
    for record in records:
        if not isinstance(record, dict) or not _is_number(record.get("step")):
            continue
        while kept and kept[-1]["step"] >= record["step"]:
            kept.pop()
        kept.append(record)
    return kept


def distinct_names(workdirs: Sequence[str]) -> list[str]:
    """Returns the ends of paths that tell them apart: a/x and b/x stay so, a/x and a/y become x and y.

    The same path given twice gets its number after it.
    """
    parts = [
        PurePath(os.path.normpath(path) if "://" not in path else path.rstrip("/")).parts for path in workdirs
    ]
    names = [str(PurePath(*part[-1:])) if part else "." for part in parts]
    for length in range(2, max(map(len, parts), default=0) + 1):
        double = [number for number, name in enumerate(names) if names.count(name) > 1]
        for number in double:
            names[number] = str(PurePath(*parts[number][-length:]))
    return [f"{name} ({number + 1})" if names.count(name) > 1 else name for number, name in enumerate(names)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
