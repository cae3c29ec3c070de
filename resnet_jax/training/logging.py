"""What a run writes down: one record per step in metrics.jsonl, and TensorBoard events."""

import json
import os
from typing import Any

from etils import epath
from tensorboardX import SummaryWriter

from resnet_jax.training.workdir import METRICS, TENSORBOARD

Record = dict[str, float]
"""`step`, `loss`, `top1`, `learning_rate` of a training step; `test_…` where it was evaluated; `time`, `images_per_second`,
`input_share`, which alone differ from run to run."""


class MetricsLog:
    """Appends records to metrics.jsonl, in which every step stands once, and to TensorBoard.

    Args:
        workdir: Of the run.
        step: The step that the run goes on from. Records beyond it are those of steps that will be made again, and are dropped,
            as is a line that was cut short.
        tensorboard: Write events too.
    """

    def __init__(self, workdir: epath.Path, *, step: int, tensorboard: bool) -> None:
        path = workdir / METRICS
        kept = [record for record in read_metrics(workdir) if record["step"] <= step]
        partial = workdir / f"{METRICS}.partial"
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        partial.replace(path)
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
                    self._events.add_scalar(f"test/{metric}" if metric else f"train/{group}", value, int(record["step"]))

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
    path = epath.Path(workdir) / METRICS
    records: list[Any] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
