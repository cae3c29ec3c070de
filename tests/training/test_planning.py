"""Plans of recipes: on devices of this machine for what is computed, and on a slice for what only the TPU
compiler can tell."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from resnet_jax import cli
from resnet_jax.parallel import DeviceError
from resnet_jax.parallel.chips import parse_topology
from resnet_jax.training import planning, save_time
from resnet_jax.training.checkpoints import to_arrays
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.save_time import Bandwidth, SaveTime
from resnet_jax.training.task import build_experiment
from tests.training import tiny

SLICE = "v5e:2x4"
KEYS = {
    "topology", "chips", "devices", "batch_per_chip", "hbm_bytes", "hbm_capacity_bytes", "flops",
    "bytes_accessed", "cycles",
    "step_seconds_estimate", "images_per_second_estimate", "fits",
}  # fmt: skip
PLAN = ["plan", "--config", str(tiny.PATH), "--topology", SLICE]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles for the eight CPU devices of the tests instead of a slice."""
    monkeypatch.setattr(planning, "devices_of", lambda topology: tuple(jax.devices()[: topology.chips]))
    monkeypatch.setattr("resnet_jax.parallel.plan.prepare_compiler", lambda: None)


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs need 100 bytes an image of a device, and have 250."""

    def compile_step(*arguments: Any) -> planning.Compiled:
        _, _, batch, devices = arguments
        needed = 100 * batch["image"].shape[0] // len(devices)
        return planning.Compiled(needed <= 250, 0, 0, needed, 250, cycles=9)

    monkeypatch.setattr(planning, "compile_step", compile_step)


@pytest.mark.usefixtures("here")
def test_the_plan_of_a_recipe_has_the_keys_and_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*PLAN, "--price", "2", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert set(plan) >= KEYS
    assert (plan["chips"], plan["devices"], plan["batch_per_chip"], plan["fits"]) == (8, 8, 2, True)
    assert plan["images_per_second_estimate"] == pytest.approx(16 / plan["step_seconds_estimate"])
    assert plan["step_seconds_estimate"] == pytest.approx(
        max(plan["flops"] / 197e12, plan["bytes_accessed"] / 819e9)
    )
    assert plan["hours_estimate"] == pytest.approx(60 * plan["step_seconds_estimate"] / 3600)
    assert plan["cost_estimate"] == pytest.approx(plan["hours_estimate"] * 8 * 2)
    assert plan["collectives"]["all-reduce"]["count"] > 0
    assert not plan["data_is_stand_in"]


@pytest.mark.usefixtures("here", "cramped")
def test_what_does_not_fit_is_said_with_the_largest_batch(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*PLAN, "--set", "batch_size=64", "--json"]) == 2
    said = capsys.readouterr()
    plan = json.loads(said.out)
    assert (plan["fits"], plan["largest_batch_that_fits"], plan["step_seconds_estimate"]) == (False, 16, None)
    assert (
        "a batch of 64 does not fit the memory of v5e:2x4; the largest batch found to fit is 16"
        in said.err.splitlines()[-1]
    )
    assert (
        cli.main(
            ["plan", "--config", str(tiny.PATH), "--set", "batch_size=16", "--topology", SLICE, "v2:2x2"]
        )
        == 0
    )
    assert "v2:2x2" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_a_set_that_is_not_here_is_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def compile_step(*arguments: Any) -> planning.Compiled:
        seen.update(state=arguments[1], batch=arguments[2])
        return planning.Compiled(True, 0, 0, 0)

    monkeypatch.setattr(planning, "compile_step", compile_step)
    config = tiny.get_config(
        **{"data.source": "/no/such/folder", "data.image_size": 24, "data.mean": "imagenet"}
    )
    plan = planning.make_plan(config, parse_topology(SLICE), classes=11)
    assert plan.stand_in
    assert seen["batch"]["image"].shape == (16, 24, 24, 3)
    assert seen["state"].params["head"]["kernel"].shape[-1] == 11
    assert dataclasses.asdict(plan)["steps"] == 60


@pytest.mark.usefixtures("here")
def test_a_batch_that_cannot_be_cut_and_float64_are_refused() -> None:
    with pytest.raises(
        DeviceError,
        match=r"batch_size 20 in groups of 4 cannot be cut over the 8 devices .* nearest smaller one is 16",
    ):
        planning.make_plan(tiny.get_config(batch_size=20), parse_topology(SLICE))
    with pytest.raises(DeviceError, match="the smallest is 8"):
        planning.make_plan(tiny.get_config(batch_size=4), parse_topology(SLICE))
    with pytest.raises(ConfigError, match="float64"):
        planning.make_plan(tiny.get_config(**{"model.dtype": "float64"}), parse_topology(SLICE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v5e:3x3"], "there is no topology 'v5e:3x3'"),
        (["--topology", SLICE, "--set", "batch_size"], "write FIELD=VALUE"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "--config", str(tiny.PATH), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert len(capsys.readouterr().err.splitlines()) <= 1


def save_of(**changes: Any) -> SaveTime:
    """A save of ten seconds, 50 steps of one second after the one before."""
    values: dict[str, Any] = {
        "checkpoint_bytes": 1000, "bandwidth": Bandwidth(100, "given"), "grace_seconds": 30.0,
        "checkpoint_every": 50, "step_seconds": 1.0,
    }  # fmt: skip
    return SaveTime(**values | changes)


@pytest.mark.parametrize(
    ("grace", "lost", "words"),
    [
        (22.0, 0, "fits the grace period of 22 s, even if another save is under way: a preemption loses no"),
        (21.9, 50, "fits the grace period of 21.9 s, unless another save is under way: .* at most 50 steps"),
        (12.0, 50, "fits the grace period of 12 s, unless"),
        (11.9, 100, "does not fit the grace period of 11.9 s: .* at most 100 steps are lost"),
    ],
)
def test_a_save_is_compared_with_the_grace_period(grace: float, lost: int, words: str) -> None:
    """Two steps are finished, then a save that is under way, then the last save."""
    save = save_of(grace_seconds=grace)
    assert save.most_steps_lost == lost
    assert re.search(f"^{words}", save.describe()[1])


def test_a_save_is_compared_with_the_steps_between_two() -> None:
    assert save_of(checkpoint_every=10).describe()[2] == "10 steps between saves take 10 s"
    stalled = save_of(checkpoint_every=9)
    assert stalled.stalls_loop
    assert stalled.describe()[2].endswith("so the loop stalls: set run.checkpoint_every to 10 or more")
    unknown = save_of(step_seconds=None)
    assert (unknown.stalls_loop, len(unknown.describe())) == (None, 2)


@pytest.mark.usefixtures("here", "cramped")
def test_the_plan_has_the_bytes_of_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    arrays = to_arrays(build_experiment(tiny.get_config()).initial_state())
    assert cli.main([*PLAN, "--save-bandwidth", "0.05", "--grace", "15", "--json"]) == 0
    save = json.loads(capsys.readouterr().out)["save"]
    assert save["checkpoint_bytes"] == sum(np.asarray(array).nbytes for array in arrays.values())
    assert save["seconds_estimate"] == pytest.approx(save["checkpoint_bytes"] / 50_000)
    assert (save["bandwidth_source"], save["grace_seconds"]) == ("given", 15)
    assert save["stop_seconds_estimate"] > save["seconds_estimate"]


@pytest.mark.usefixtures("here", "cramped")
def test_the_bandwidth_is_measured_and_its_file_removed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save_time, "_MEASURED", 3)
    assert cli.main([*PLAN, "--measure-save", str(tmp_path / "new"), "--json"]) == 0
    save = json.loads(capsys.readouterr().out)["save"]
    assert save["bandwidth_source"] == "measured"
    assert save["bytes_per_second"] > 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").write_text("kept")
    for arguments, message in {
        ("--measure-save", str(tmp_path / "old")): "exists; name a file that does not exist yet",
        ("--measure-save", str(tmp_path / "no" / "folder")): "cannot be written: No such file",
        ("--measure-save", "new", "--save-bandwidth", "5"): "both set the bandwidth of a save; give one",
        ("--grace", "0"): "'0' is not a number above 0",
        ("--save-bandwidth", "fast"): "'fast' is not a number above 0",
    }.items():
        assert cli.main([*PLAN, *arguments]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "old").read_text() == "kept"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install 'resnet-jax[tpu]'"
)
@pytest.mark.parametrize("scan", ["no", "yes"])
def test_the_tpu_compiler_plans_a_small_net(scan: str) -> None:
    command = [
        sys.executable,
        "-m",
        "resnet_jax",
        "plan",
        "--config",
        str(tiny.PATH),
        "--topology",
        "v5e:2x2",
        "--json",
    ]
    command += [
        "--set",
        f"run.scan={scan}",
        "model.name=cifar_resnet20",
        "model.dtype=bfloat16",
        "batch_size=64",
    ]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["chips"], plan["devices"], plan["fits"]) == (4, 4, True)
    # Forward and backward are three times the multiply-adds of the net on images of 8 × 8, 1/16 of those on
    # 32 × 32.
    assert plan["flops"] == pytest.approx(3 * 2 * 16 * 40.6e6 / 16, rel=0.35)
    assert plan["cycles"] > 0
    assert plan["collectives"]["all-reduce"]["bytes"] >= 4 * 269_000
