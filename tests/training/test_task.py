"""A task from outside the package is trained by its name, through the one loop.

Resumed, evaluated and reported.
"""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax import load_checkpoint
from resnet_jax.cli import main
from resnet_jax.training.checkpoints import read_checkpoint, steps_in
from resnet_jax.training.config import resolve
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.logging import read_metrics
from resnet_jax.training.task import Task, open_task
from tests.training import runs, tiny

TASK = "--config.task=tests.training.counting_task:CountingTask(floor=1.5)"
SHORT = (TASK, "--config.run.steps=14", "--config.optimizer.learning_rate=0.01")


@pytest.mark.slow
def test_a_task_from_outside_trains_resumes_after_a_kill_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = runs.start(tmp_path / "killed", *SHORT)
    runs.wait_until(lambda: 7 in steps_in(tmp_path / "killed"), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for name in ("killed", "undisturbed"):
        code, out, error = runs.finish(runs.start(tmp_path / name, *SHORT))
        assert code == 0, error
        assert "done: RMSE" in out
    runs.assert_same_outcome(tmp_path / "killed", tmp_path / "undisturbed")
    records = read_metrics(tmp_path / "killed")
    assert {"within_a_half", "loss"} <= records[0].keys()
    assert "top1" not in records[0]
    assert records[-1]["test_squared_error"] == -records[-1]["test_score"] > 0
    assert (tmp_path / "killed" / "curves.png").stat().st_size > 1000

    model, variables = load_checkpoint(str(tmp_path / "killed"))
    assert model.apply(variables, np.zeros((2, 8, 8, 3), np.float32)).shape == (2, 1)
    assert read_checkpoint(tmp_path / "killed").config["task"] == TASK.partition("=")[2]
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "killed"), "--records-only", "--to", str(page)]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--workdir", str(tmp_path / "killed"), "--json", "--trust-code"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["squared_error"] == pytest.approx(records[-1]["test_squared_error"], rel=1e-5)
    assert evaluated["examples"] == 25
    assert main(["evaluate", "--workdir", str(tmp_path / "killed"), "--confusion", "--trust-code"]) == 2
    assert "--confusion is only for classification" in capsys.readouterr().err


def not_a_task() -> int:
    return 3


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "detecton",
            "config.task is 'detecton'; it must be one of classification, detection, or package.module",
        ),
        ("tests.training.test_task:not_a_task", "which makes a int; it must make a"),
        ("tests.training.test_task:Missing", "has no 'Missing'"),
    ],
)
def test_a_task_that_is_none_is_named(task: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_task(resolve(tiny.get_config(task=task)))


def test_a_task_that_cannot_be_planned_says_so() -> None:
    with pytest.raises(ConfigError, match="cannot be planned"):
        Task().abstract(tiny.get_config())
    assert jax.devices()
