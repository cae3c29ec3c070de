"""Several processes train as one, over Gloo on this machine; another number of them goes on.

One that is gone ends the others.
"""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from resnet_jax.training.checkpoints import read_checkpoint, steps_in
from resnet_jax.training.logging import TIME_FIELDS, read_metrics
from resnet_jax.training.run import run
from tests.parallel.test_mapping import assert_close
from tests.training import processes, runs, tiny

FURTHER = 30
LAST = 50
DOUBLE = {
    "model.dtype": "float64",
    "model.group_size": 8,
    "run.steps": LAST,
    "run.evaluate_every": 10,
    "run.checkpoint_every": 25,
    "run.keep": 9,
}
FLAGS = tuple(f"--config.{name}={value}" for name, value in DOUBLE.items())
FOUR = ("--config.run.devices=4",)


@pytest.fixture(scope="module")
def double() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def go_on(workdir: Path, **changes: Any) -> Path:
    run(tiny.get_config(**DOUBLE, **changes), workdir)
    return workdir


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, double: None) -> Path:
    """One process of two devices."""
    del double
    return go_on(tmp_path_factory.mktemp("undisturbed") / "run", **{"run.devices": 2})


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes of two devices, of which the second was told to stop."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    with processes.started(workdir, 2, *FLAGS, *FOUR) as running:
        runs.wait_until(lambda: runs.logged_step(workdir) >= 8, running[0], timeout=300)
        running[1].send_signal(signal.SIGTERM)
        for code, out, err in processes.finish(running):
            assert code == 75, err
            assert (
                f"stopped and saved at step {runs.logged_step(workdir)}; run the same command again" in err
            ), (out, err)
    return workdir


def assert_same_curve(one: Path, other: Path, *, steps: int) -> None:
    """Compares losses and evaluations of the first steps, to 1e-9."""
    records, expected = read_metrics(one)[:steps], read_metrics(other)[:steps]
    assert [record["step"] for record in records] == list(range(1, steps + 1))
    for record, wanted in zip(records, expected, strict=True):
        assert record.keys() == wanted.keys()
        for name in record.keys() - TIME_FIELDS:
            np.testing.assert_allclose(
                record[name], wanted[name], rtol=1e-9, atol=1e-9, err_msg=f"{name} of {record}"
            )


def test_two_processes_make_the_steps_of_one_and_stop_at_the_same(stopped: Path, undisturbed: Path) -> None:
    last = steps_in(stopped)[-1]
    assert 8 <= last <= LAST - FURTHER, "the machine was too slow to stop it in time"
    assert last == len(read_metrics(stopped))
    assert_same_curve(stopped, undisturbed, steps=last)


@pytest.mark.parametrize(
    "changes",
    [
        {"run.devices": 8, "run.mapping": "shard_map"},
        pytest.param({"run.devices": 1}, marks=pytest.mark.slow),
        pytest.param({"run.devices": 1, "run.accumulation": 2}, marks=pytest.mark.slow),
        pytest.param(
            {"run.devices": 2, "run.accumulation": 2, "run.mapping": "shard_map"}, marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.usefixtures("double")
def test_one_process_goes_on_where_two_stopped(
    stopped: Path, undisturbed: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    go_on(tmp_path / "run", **changes)
    assert_same_curve(tmp_path / "run", undisturbed, steps=LAST)
    assert_close(read_checkpoint(undisturbed).arrays, read_checkpoint(tmp_path / "run").arrays, 1e-8)


@pytest.mark.slow
def test_processes_of_fewer_devices_choose_their_accumulation(
    stopped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    with processes.started(workdir, 2, *FLAGS, "--config.run.devices=2") as running:
        ended = processes.finish(running)
    for code, _, err in ended:
        assert code == 0, err
    printed = " ".join(ended[0][1].split())
    assert (
        "devices: 2 (before: 4); accumulation: 2 (before: 1), so a device holds 4 images at once;" in printed
    )
    assert "accumulation:" not in ended[1][1]
    assert_same_curve(workdir, undisturbed, steps=LAST)
    assert_close(read_checkpoint(undisturbed).arrays, read_checkpoint(workdir).arrays, 1e-8)


@pytest.mark.slow
def test_four_processes_go_on_where_two_stopped_and_end_when_one_is_killed(
    stopped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    with processes.started(workdir, 4, *FLAGS, *FOUR, "--config.run.steps=100000") as running:
        runs.wait_until(lambda: LAST in steps_in(workdir), running[0], timeout=300)
        processes.kill(running, 2)
    assert_same_curve(workdir, undisturbed, steps=LAST)
    assert_close(read_checkpoint(undisturbed).arrays, read_checkpoint(workdir, LAST).arrays, 1e-8)
    assert read_checkpoint(workdir).step >= LAST


@pytest.mark.slow
def test_ctrl_c_on_the_first_stops_all_under_pmap_too(undisturbed: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with processes.started(workdir, 2, *FLAGS, *FOUR, "--config.run.mapping=pmap") as running:
        runs.wait_until(lambda: runs.logged_step(workdir) >= 3, running[0], timeout=300)
        running[0].send_signal(signal.SIGINT)
        for code, _, err in processes.finish(running):
            assert code == 75, err
    assert 3 <= steps_in(workdir)[-1] == len(read_metrics(workdir)) < LAST
    assert_same_curve(workdir, undisturbed, steps=len(read_metrics(workdir)))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("digits") / "run"
    assert train_digits(workdir, 1, devices=2)
    return workdir


def train_digits(workdir: Path, count: int, *, devices: int) -> bool:
    """Makes the first steps of the default recipe in float64."""
    changes = {"model.dtype": "float64", "run.steps": 20, "run.evaluate_every": 10, "run.devices": devices}
    flags = [f"--config.{name}={value}" for name, value in changes.items()]
    with processes.started(workdir, count, *flags, config="digits_resnet20") as running:
        return all(code == 0 for code, _, _ in processes.finish(running, timeout=600))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_train_the_digits_as_one_does(digits: Path, tmp_path: Path, count: int) -> None:
    assert train_digits(tmp_path / "run", count, devices=4)
    assert_same_curve(tmp_path / "run", digits, steps=20)
    assert_close(read_checkpoint(digits).arrays, read_checkpoint(tmp_path / "run").arrays, 1e-8)


@pytest.mark.slow
def test_the_others_end_when_the_coordinator_is_killed(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with processes.started(workdir, 2, *FOUR, "--config.run.steps=100000") as running:
        runs.wait_until(lambda: runs.logged_step(workdir) >= 3, running[0], timeout=300)
        processes.kill(running, 0)


def test_processes_of_different_recipes_stop_and_name_what_differs(tmp_path: Path) -> None:
    each = {1: ("--config.optimizer.learning_rate=0.2", "--config.run.workers=2")}
    with processes.started(tmp_path / "run", 2, each=each) as running:
        for code, _, err in processes.finish(running, timeout=120):
            assert code == 2, err
            assert "config.optimizer.learning_rate (0.1 on process 0, 0.2 on process 1)" in err
            assert "workers" not in err
            assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


SHARE = """
import sys
import numpy as np
from resnet_jax.parallel import Processes
from resnet_jax.training.checkpoints import Checkpoint
from resnet_jax.training.shared_checkpoint import share_checkpoint
_, _, coordinator, count, index = [word.partition("=")[2] for word in sys.argv[1:]]
arrays = {"a": np.array([[-0.0, 1.5], [np.nan, 3e-45]], np.float32), "b": np.array(7), "c": np.zeros((0, 3))}
arrays["d"] = np.arange(70 << 20, dtype=np.uint8)
made = Checkpoint(5, arrays, {"seed": 1}, {"name": "net"}, ("x", "y"), None)
with Processes() as processes:
    processes.join(coordinator=coordinator, count=int(count), index=int(index))
    found = share_checkpoint(made if processes.first else None, processes)
    processes.agree("end", {})
    assert found is not None
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in found.arrays.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in arrays.items()}
    assert (found.step, found.config, found.model) == (5, {"seed": 1}, {"name": "net"})
    assert found.class_names == ("x", "y")
    print("the same")
"""


@pytest.mark.slow
def test_what_the_first_has_read_arrives_bit_for_bit(tmp_path: Path) -> None:
    with processes.started(tmp_path, 2, program=SHARE, config="") as running:
        ended = processes.finish(running)
    # Gloo would greet on standard output, where programs may read.
    assert [(code, out) for code, out, _ in ended] == [(0, "the same\n")] * 2, ended
