"""A run that is killed and started again ends as the undisturbed one, bit for bit."""

import os
import signal
from pathlib import Path

import pytest

from resnet_jax.training import loop
from resnet_jax.training import run as run_module
from resnet_jax.training.checkpoints import steps_in
from resnet_jax.training.logging import read_metrics
from resnet_jax.training.run import run
from tests.faults.harness import disturb
from tests.training import runs, tiny


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    code, out, err = runs.finish(runs.start(workdir, "--config.run.keep=1000"))
    assert code == 0, err
    assert "done: test accuracy" in out
    return workdir


@pytest.fixture(scope="module")
def undisturbed_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in this process, whose eight virtual devices share out the work of the cores in another
    way: other sums."""
    run(tiny.get_config(), workdir := tmp_path_factory.mktemp("undisturbed") / "here")
    return workdir


def test_every_step_stands_once(undisturbed: Path) -> None:
    assert [record["step"] for record in read_metrics(undisturbed)] == list(range(1, 61))


@pytest.mark.slow
def test_three_kills_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    """While it starts, at a step and during a save; `python -m tests.faults` makes 30."""
    workdir = tmp_path / "run"
    report = disturb(lambda: [runs.start(workdir)], workdir, undisturbed, kills=3, seed=20151210, interval=7)
    assert report.kept, report
    assert 1 < runs.check_wall_time(workdir) <= 4
    assert (report.kills, report.restarts, report.corrupt_loads) == (3, 3, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_the_step_and_loses_none(undisturbed: Path, tmp_path: Path, number: int) -> None:
    workdir = tmp_path / "run"
    process = runs.start(workdir)
    runs.wait_until(lambda: runs.logged_step(workdir) >= 10, process)
    process.send_signal(number)
    code, _, err = runs.finish(process)
    assert code == 75, err
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert steps_in(workdir)[-1] == runs.logged_step(workdir)
    code, out, _ = runs.finish(runs.start(workdir))
    assert code == 0
    assert "over 2 starts: computing" in out
    runs.assert_same_outcome(undisturbed, workdir)
    assert runs.check_wall_time(workdir) == 2
    assert read_metrics(workdir)[-1]["seconds_lost"] == 0
    assert read_metrics(workdir)[-1]["seconds_restoring"] > 0


def test_a_longer_run_goes_on_where_the_shorter_ended(undisturbed_here: Path, tmp_path: Path) -> None:
    run(tiny.get_config(**{"run.steps": 20}), tmp_path / "run")
    run(tiny.get_config(), tmp_path / "run")
    runs.assert_same_outcome(undisturbed_here, tmp_path / "run")
    assert runs.check_wall_time(tmp_path / "run") == 2


@pytest.mark.slow
def test_the_comparison_notices_data_that_is_replayed(
    undisturbed_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny.get_config(**{"run.steps": 20}), tmp_path / "run")
    read_ahead = loop.read_ahead
    monkeypatch.setattr(
        loop,
        "read_ahead",
        lambda batches, start, stop, **options: read_ahead(batches, 0, stop - start, **options),
    )
    run(tiny.get_config(), tmp_path / "run")
    with pytest.raises(AssertionError):
        runs.assert_same_outcome(undisturbed_here, tmp_path / "run")


@pytest.mark.slow
def test_the_comparison_notices_a_lost_momentum(
    undisturbed_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny.get_config(**{"run.steps": 20}), tmp_path / "run")
    restore = run_module.from_arrays
    monkeypatch.setattr(
        run_module,
        "from_arrays",
        lambda state, arrays: restore(state, arrays).replace(opt_state=state.opt_state),
    )
    run(tiny.get_config(), tmp_path / "run")
    with pytest.raises(AssertionError):
        runs.assert_same_outcome(undisturbed_here, tmp_path / "run")


def test_a_finished_run_says_so_and_changes_nothing(undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("checkpoints/*/**/*")}
    code, out, _ = runs.finish(runs.start(undisturbed))
    assert code == 0
    assert "complete at step 60 already; to train longer raise --config.run.steps" in out
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.glob("checkpoints/*/**/*")}


def test_a_second_run_on_a_live_workdir_is_refused(tmp_path: Path) -> None:
    first = runs.start(tmp_path / "run", "--config.run.steps=100000")
    runs.wait_until(lambda: runs.logged_step(tmp_path / "run") >= 1, first)
    code, _, err = runs.finish(runs.start(tmp_path / "run"))
    first.kill()
    first.communicate()
    assert code == 2
    assert err.count("\n") == 1
    assert "a run is live on" in err
    assert os.path.exists(tmp_path / "run" / "metrics.jsonl")
