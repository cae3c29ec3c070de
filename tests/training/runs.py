"""Runs in processes of their own, to be killed; and the comparison of what two runs leave."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.cli import main
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.logging import TIME_FIELDS, read_metrics

TINY = Path(__file__).with_name("tiny.py")
COMPILE_FASTER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def train(arguments: Sequence[str]) -> int:
    """Trains in this process, by the command line, and returns the exit code."""
    return main(["train", *arguments])


def start(
    workdir: Path, *arguments: str, remember_compiled: bool = True, **options: Any
) -> subprocess.Popen[str]:
    """Starts train.py's entry on the tiny recipe."""
    command = [
        sys.executable,
        "-c",
        "import sys; from resnet_jax.cli import main; sys.exit(main(['train', *sys.argv[1:]]))",
    ]
    command += [f"--config={TINY}", f"--workdir={workdir}", *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TINY.parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    environment["PYTHONUNBUFFERED"] = "1"  # So that a killed process has printed what it said.
    environment["XLA_FLAGS"] = COMPILE_FASTER
    if not remember_compiled:
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Returns the exit code, stdout and stderr of a process that ends by itself."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], timeout: float = 120) -> None:
    """Returns at the moment that the condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def logged_step(workdir: Path) -> int:
    """Returns the last step in metrics.jsonl, 0 where there is none."""
    records = read_metrics(workdir)
    return int(records[-1]["step"]) if records else 0


def assert_same_outcome(one: Path, other: Path) -> None:
    """Checks that two runs end with bit-identical states and with the same records but for wall-clock
    fields."""
    first, second = read_checkpoint(one), read_checkpoint(other)
    assert first.step == second.step
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name], err_msg=name)
    assert timeless(one) == timeless(other)


def first_start(record: dict[str, float]) -> float:
    """Returns when a run first started: the time of a record less all parts of the time until then."""
    return record["time"] - sum(value for name, value in record.items() if name.startswith("seconds_"))


def check_wall_time(workdir: Path) -> int:
    """Checks that the parts of every record add up to the time since the first start; returns the starts."""
    records = read_metrics(workdir)
    firsts = [first_start(record) for record in records]
    assert max(firsts) - min(firsts) < 0.1, firsts
    assert all(record[name] >= 0 for record in records for name in record if name.startswith("seconds_"))
    return int(records[-1]["starts"])


def timeless(workdir: Path) -> list[str]:
    """Returns the records of a run without the fields that tell of time."""
    records = read_metrics(workdir)
    return [
        json.dumps({name: value for name, value in record.items() if name not in TIME_FIELDS})
        for record in records
    ]
