"""The harness sees what it looks for."""

from pathlib import Path

import numpy as np
import pytest

from resnet_jax.training.checkpoint_writer import CheckpointWriter
from tests.faults.harness import Report, check_beginning, corrupt_checkpoints


def save(workdir: Path, *values: float) -> Path:
    """Saves a checkpoint for each value, of steps 1, 2, …"""
    workdir.mkdir()
    writer = CheckpointWriter(workdir, keep=9, config={}, model={})
    for step, value in enumerate(values, start=1):
        writer.save(step, {"params": {"kernel": np.full(4, value, np.float32)}})
    writer.wait()
    writer.close()
    return workdir


def test_checkpoints_that_differ_or_are_damaged_are_counted(tmp_path: Path) -> None:
    undisturbed = save(tmp_path / "undisturbed", 1, 2, 3)
    assert corrupt_checkpoints(save(tmp_path / "same", 1, 2, 3), undisturbed) == 0
    other = save(tmp_path / "other", 1, 2.5, 3)
    assert corrupt_checkpoints(other, undisturbed) == 1
    (other / "checkpoints" / "3" / "checksums.json").unlink()
    assert corrupt_checkpoints(other, undisturbed) == 2
    (other / "checkpoints" / "1" / "checksums.json").unlink()
    assert corrupt_checkpoints(other, undisturbed) == 2


def test_a_start_from_another_checkpoint_or_past_a_damaged_one_is_noticed() -> None:
    report = Report(promised=14)
    check_beginning(report, "net on data: resumes from step 14 of 60, into run", "", [7, 14])
    with pytest.raises(AssertionError, match=r"resumes from step 7 of, of checkpoints \[7, 14\]"):
        check_beginning(report, "net on data: resumes from step 7 of 60, into run", "", [7, 14])
    assert report.corrupt_loads == 0
    check_beginning(report, "", "resnet-jax: warning: run/checkpoints/14 is damaged: …", [7, 14])
    assert report.corrupt_loads == 1


@pytest.mark.parametrize("broken", [{"identical": False}, {"corrupt_loads": 1}, {"most_steps_lost": 15}])
def test_a_promise_that_is_broken_is_told(broken: dict[str, int]) -> None:
    assert Report(promised=14, identical=True, most_steps_lost=14).kept
    assert not Report(**{"promised": 14, "identical": True, **broken}).kept
