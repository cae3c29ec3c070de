"""Metrics of a run: one record per step in metrics.jsonl, and TensorBoard events."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import TypeVar

from etils import epath

from resnet_jax.files import as_path, read_bytes
from resnet_jax.training.appended_lines import append_lines
from resnet_jax.training.config_sections import RunConfig
from resnet_jax.training.event_files import EventFiles
from resnet_jax.training.workdir import METRICS, TENSORBOARD

T = TypeVar("T")

Record = dict[str, float]
"""Metrics of a training step by name, `test_…` where it was evaluated.

`time`, `images_per_second` and `input_share` alone differ from run to run.
"""


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
            shown = {name: value for name, value in record.items() if name not in ("step", "time")}
            self._events.add({_tag(name): value for name, value in shown.items()}, int(record["step"]))

    def sync(self) -> None:
        """Returns when all records are on the disk, so that they survive the machine."""
        self._lines.sync()

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        if self._events:
            self._events.close()


def _tag(name: str) -> str:
    """Returns the name that TensorBoard shows for a field of a record."""
    group, _, metric = name.partition("test_")
    return f"test/{metric}" if metric else f"train/{group}"


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
    """Measures images per second and the share of time spent waiting for input, between reports."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._waited = 0.0
        self._then = time.perf_counter()
        self._step: int | None = None

    def time_waiting(self, batches: Iterator[T]) -> Iterator[T]:
        """Yields the batches and adds up how long each took to come."""
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.perf_counter() - began
            yield batch

    @contextlib.contextmanager
    def leaving_out(self) -> Iterator[None]:
        """Leaves the time that the block takes, such as an evaluation, out of the speed."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._then += time.perf_counter() - began

    def tick(self, step: int) -> dict[str, float]:
        """Returns the fields of a record that tell of time."""
        now = time.perf_counter()
        elapsed = max(now - self._then, 1e-9)
        steps = step - self._step if self._step is not None else 1
        rate, share = steps * self._batch_size / elapsed, min(1.0, self._waited / elapsed)
        self._then, self._waited, self._step = now, 0.0, step
        return {
            "images_per_second": round(rate, 1),
            "input_share": round(share, 4),
            "time": round(time.time(), 3),
        }
