"""Metrics of a run: one record per step in metrics.jsonl, and TensorBoard events."""

import json
import time
from collections.abc import Iterator
from typing import TypeVar

from etils import epath

from resnet_jax.files import as_path, read_bytes
from resnet_jax.training.appended_lines import append_lines
from resnet_jax.training.config_sections import RunConfig
from resnet_jax.training.event_files import EventFiles
from resnet_jax.training.stopwatch import Stopwatch
from resnet_jax.training.wall_time import SECONDS, WALL_TIME_FIELDS
from resnet_jax.training.workdir import METRICS, TENSORBOARD

T = TypeVar("T")

Record = dict[str, float]
"""Metrics of a training step by name, `test_…` where it was evaluated; TIME_FIELDS differ from run to run."""

TIME_FIELDS = frozenset({"time", "images_per_second", "input_share"}) | WALL_TIME_FIELDS
"""Fields of a record that the clock gives; all others are the same however often the run was killed."""


class MetricsLog:
    """Appends records to metrics.jsonl, in which every step stands once, and to TensorBoard.

    Args:
        workdir: Directory of the run.
        step: The step that the run resumes from. Records beyond it are those of steps that will be made
            again, and are dropped, as is a line that was cut short.
        tensorboard: Write events too.
    """

    def __init__(self, workdir: epath.Path, *, step: int, tensorboard: bool) -> None:
        kept = [record for record in read_metrics(workdir) if record["step"] <= step]
        begun = "".join(json.dumps(record) + "\n" for record in kept)
        self._lines = append_lines(workdir / METRICS, begun)
        self._events = EventFiles(workdir / TENSORBOARD, step=step) if tensorboard else None

    def write(self, record: Record) -> None:
        """Appends a record and hands it to the operating system, so that it survives the process.

        In object storage it is there after the next upload, within half a minute at first.
        """
        self._lines.write(json.dumps(record))
        if self._events:
            evaluated = any(name.startswith("test_") for name in record)
            # An event takes 0.1 ms. Wall time is a sum, and loses nothing where it is written less often.
            left_out = {"step", "time"} if evaluated else {"step", "time", *WALL_TIME_FIELDS}
            shown = {_event_tag(name): value for name, value in record.items() if name not in left_out}
            self._events.add(shown, int(record["step"]))

    def sync(self) -> None:
        """Returns when all records are on the disk, so that they survive the machine."""
        self._lines.sync()

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        if self._events:
            self._events.close()


def _event_tag(name: str) -> str:
    """Returns the name that TensorBoard shows for a field of a record."""
    if name in WALL_TIME_FIELDS:
        return f"wall_time/{name.removeprefix(SECONDS)}"
    return f"test/{name.removeprefix('test_')}" if name.startswith("test_") else f"train/{name}"


def read_metrics(workdir: epath.PathLike) -> list[Record]:
    """Returns the records of a run; a last line that was cut short is left out."""
    path = as_path(workdir) / METRICS
    records: list[Record] = []
    for line in read_bytes(path).splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict) or "step" not in record:
            break
        records.append(record)
    return records


def test_fields(tested: dict[str, T]) -> dict[str, T]:
    """Returns the metrics of an evaluation under the names that they have in a record."""
    return {f"test_{name}": value for name, value in tested.items()}


def is_logged(step: int, tested: object, options: RunConfig) -> bool:
    """Returns whether a step's record is written: every `log_every` steps, at evaluations and at the end."""
    return bool(tested) or step % options.log_every == 0 or step == options.steps


class Clock:
    """Measures images per second and the share of time spent waiting for input, between reports.

    Evaluation and saving are left out of both.

    Args:
        batch_size: Number of images of a step.
        stopwatch: Measures the parts of the time.
    """

    def __init__(self, batch_size: int, stopwatch: Stopwatch) -> None:
        self._batch_size, self._stopwatch = batch_size, stopwatch
        self._step: int | None = None
        stopwatch.update()
        self._then = dict(stopwatch.seconds)

    def time_waiting(self, batches: Iterator[T]) -> Iterator[T]:
        """Yields the batches, and counts how long each took to come; the first is part of starting."""
        part = "starting"
        while True:
            with self._stopwatch.measure(part):
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            part = "input"
            yield batch

    def tick(self, step: int) -> dict[str, float]:
        """Returns the fields of a record that tell of time, but for WALL_TIME_FIELDS."""
        self._stopwatch.update()
        seconds = self._stopwatch.seconds
        passed = {part: seconds[part] - self._then[part] for part in ("starting", "computing", "input")}
        elapsed = max(sum(passed.values()), 1e-9)
        steps = step - self._step if self._step is not None else 1
        self._then, self._step = dict(seconds), step
        return {
            "images_per_second": round(steps * self._batch_size / elapsed, 1),
            "input_share": round(passed["input"] / elapsed, 4),
            "time": round(time.time(), 3),
        }
