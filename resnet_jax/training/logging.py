"""Metrics of a run: one record per step in metrics.jsonl, and TensorBoard events."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import TypeVar

from etils import epath
from tensorboardX import SummaryWriter

from resnet_jax.files import as_path, write_text
from resnet_jax.training.config_sections import RunConfig
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
        path = workdir / METRICS
        kept = [record for record in read_metrics(workdir) if record["step"] <= step]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = path.open("a")
        self._events = SummaryWriter(str(workdir / TENSORBOARD), purge_step=step + 1) if tensorboard else None

    def write(self, record: Record) -> None:
        """Appends a record and hands it to the operating system, so that it survives the process."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._events:
            for name, value in record.items():
                if name not in ("step", "time"):
                    group, _, metric = name.partition("test_")
                    self._events.add_scalar(
                        f"test/{metric}" if metric else f"train/{group}", value, int(record["step"])
                    )

    def sync(self) -> None:
        """Returns when all records are on the disk, so that they survive the machine."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._events:
            self._events.close()


def read_metrics(workdir: epath.PathLike) -> list[Record]:
    """Returns the records of a run; a last line that was cut short is left out."""
    path = as_path(workdir) / METRICS
    records: list[Record] = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
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
