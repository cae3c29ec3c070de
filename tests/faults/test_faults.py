"""Faults of the disk, the directory and the clock: each ends in one clear line, or changes nothing."""

import contextlib
import ctypes
import errno
import io
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import filelock
import numpy as np
import pytest
from rich.console import Console

from resnet_jax.training.checkpoint_writer import CheckpointWriter, SaveError
from resnet_jax.training.checkpoints import read_checkpoint, steps_in
from resnet_jax.training.logging import MetricsLog, read_metrics
from resnet_jax.training.progress import Reporter
from resnet_jax.training.workdir import LOCK, WorkdirError, occupy
from tests.training import runs
from tests.training.runs import train

TINY = f"--config={runs.TINY}"
STATE = {"params": {"kernel": np.arange(6, dtype=np.float32)}}
DAC_OVERRIDE, CAPABILITY_VERSION_3 = 1, 0x20080522


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[CheckpointWriter]:
    """Of a run that has saved step 1."""
    (tmp_path / "run").mkdir()
    writer = CheckpointWriter(tmp_path / "run", keep=2, config={}, model={})
    writer.save(1, STATE)
    writer.wait()
    yield writer
    writer.close()


@contextlib.contextmanager
def permissions_bind() -> Iterator[None]:
    """Lets what a directory permits hold for this thread even where the tests are run by root; on Linux."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    sets[0] &= ~(1 << DAC_OVERRIDE)
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = effective
        assert libc.capset(header, sets) == 0


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    directory.chmod(0o555)
    try:
        with permissions_bind():
            yield
    finally:
        directory.chmod(0o755)


def test_a_disk_that_becomes_read_only_ends_in_one_line(writer: CheckpointWriter, tmp_path: Path) -> None:
    before = threading.enumerate()
    wanted = r"^the checkpoint of step 2 could not be written.*Permission denied.*resumes from step 1$"
    with read_only(tmp_path / "run" / "checkpoints"), pytest.raises(SaveError, match=wanted):
        writer.save(2, STATE)
    assert read_checkpoint(tmp_path / "run").step == 1
    assert [
        thread for thread in threading.enumerate() if thread not in before and not thread.daemon
    ] == []  # Or the end is late.


def test_a_read_only_workdir_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    with read_only(tmp_path / "run"):
        assert train([TINY, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert (
        error == f"resnet-jax: workdir {tmp_path / 'run'} cannot be used: Permission denied; choose another "
        "--workdir\n"
    )


def test_a_read_only_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: filelock.FileLock) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(filelock.FileLock, "__enter__", fail)
    with (
        pytest.raises(WorkdirError, match="cannot be used: Read-only file system; choose another"),
        occupy(tmp_path),
    ):
        pass


def test_a_workdir_that_vanishes_between_saves_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real run, whose workdir is deleted just before its second save."""
    workdir = tmp_path / "run"
    sync = MetricsLog.sync

    def vanish(log: MetricsLog) -> None:
        sync(log)
        if steps_in(workdir):
            workdir.rename(tmp_path / "elsewhere")  # At once: the step before may still be being written.

    monkeypatch.setattr(MetricsLog, "sync", vanish)
    assert train([TINY, f"--workdir={workdir}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(
        rf"the workdir {workdir} is gone .* and step \d+ is not saved; bring it back and run the same",
        error,
    )
    assert not workdir.exists()


def test_a_workdir_that_vanishes_during_a_save_is_named(writer: CheckpointWriter, tmp_path: Path) -> None:
    writer.save(2, STATE)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    if 2 not in steps_in(tmp_path / "elsewhere"):
        with pytest.raises(SaveError, match="is gone"):
            writer.wait()
    assert read_checkpoint(tmp_path / "elsewhere", 1).step == 1


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wall clock goes back and forth by minutes while a run goes.

    Rates, remaining time and checkpoints do not notice.
    """
    jumps, true = cycle((0, 100, -100)), time.time
    monkeypatch.setattr(time, "time", lambda: true() + next(jumps))
    arguments = ["--config.run.steps=14", "--config.run.evaluate_every=2"]
    began = time.monotonic()
    assert train([TINY, f"--workdir={tmp_path / 'run'}", *arguments]) == 0
    took = time.monotonic() - began
    out = capsys.readouterr().out
    remaining = [float(seconds) for seconds in re.findall(r"(\S+) s left", out)]
    assert remaining
    assert all(0 <= seconds < 14 * took for seconds in remaining)
    records = read_metrics(tmp_path / "run")
    assert len({record["time"] > true() for record in records}) == 2  # The clock did jump.
    assert sum(16 / record["images_per_second"] for record in records) < took
    assert steps_in(tmp_path / "run") == [7, 14]


def test_the_remaining_time_is_of_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    seconds = iter([100.0, 100.0, 100.0, 110.0])
    monkeypatch.setattr("resnet_jax.training.progress.time.monotonic", lambda: next(seconds))
    monkeypatch.setattr("resnet_jax.training.progress.print_line", lambda _, line: lines.append(line))
    reporter = Reporter(Console(file=io.StringIO()), lambda _: "a step", start=0, steps=40)
    for step in (10, 20):
        reporter.step({"step": step, "loss": 1.0, "top1": 0.5, "images_per_second": 1.0, "input_share": 0.0})
    assert [line.rpartition(", ")[2] for line in lines] == ["20 s left"]


@pytest.mark.parametrize("modified", [0, 4_000_000_000])
def test_a_live_run_keeps_others_out_however_old_its_lock_looks(tmp_path: Path, modified: int) -> None:
    with occupy(tmp_path):
        os.utime(tmp_path / LOCK, (modified, modified))
        with pytest.raises(WorkdirError, match="a run is live on"), occupy(tmp_path):
            pass
    with occupy(tmp_path):  # And a lock that was left does not.
        pass
