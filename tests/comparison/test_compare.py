"""A comparison trains what is missing, and its numbers are those that the runs wrote down."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev

import pytest

from resnet_jax import cli
from resnet_jax.models import create_model, summarize
from resnet_jax.sweeps import sweep
from resnet_jax.sweeps.errors_over_seeds import error_curve, mean_curve
from resnet_jax.training.checkpoints import steps_in
from resnet_jax.training.logging import read_metrics
from resnet_jax.training.loop import DivergedError, Interrupted
from tests.training import runs, tiny

COMMON = ["--set", "run.steps=3", "--set", "data.synthetic_examples=64", "--set", "run.evaluate_every=1"]


RESIDUAL, PLAIN = f"residual={tiny.PATH}", f"plain={tiny.PATH},model.name=cifar_plain8,seed=1"


def compare(folder: Path, *arguments: str) -> int:
    return cli.main(["compare", "--to", str(folder), *COMMON, *arguments])


@pytest.mark.slow
def test_finished_runs_stay_and_the_table_is_what_they_wrote_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, run = [], sweep.run

    def counted(config, workdir, console):  # type: ignore[no-untyped-def]
        trained.append(Path(workdir).relative_to(tmp_path).as_posix())
        if len(trained) == 1:
            raise Interrupted("stopped and saved at step 1")
        return run(config, workdir, console)

    monkeypatch.setattr(sweep, "run", counted)
    assert [compare(tmp_path, PLAIN, "--seeds", "1", "--json") for _ in range(3)] == [75, 0, 0]
    assert trained == ["plain/seed1"] * 2
    first, said = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == said == json.loads((tmp_path / "compare.json").read_text())
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")

    summary = summarize(create_model("cifar_plain8", num_classes=7), 8)
    plain = said["outcomes"][0]
    assert (plain["name"], plain["params"], plain["macs"]) == ("plain", summary.params, summary.macs)
    last = read_metrics(tmp_path / "plain" / "seed1")[-1]
    assert plain["error_mean"] == 1 - last["test_top1"]
    assert plain["error_std"] is None
    rows = list(csv.DictReader((tmp_path / "compare.csv").open()))
    assert [(row["name"], row["seed"], row["step"]) for row in rows] == [("plain", "1", "3")]
    assert float(rows[0]["error"]) == plain["error_mean"]
    assert "| plain | " in (tmp_path / "compare.md").read_text()

    assert compare(tmp_path, PLAIN, "--seeds", "1", "--set", "optimizer.momentum=0.5") == 2
    assert "optimizer.momentum: 0.9 -> 0.5; give the config another name" in capsys.readouterr().err
    assert compare(tmp_path, PLAIN, "--seeds", "1", "--set", "run.steps=2") == 2
    assert "step 3, which is beyond run.steps 2" in capsys.readouterr().err


def fake_run(workdir: Path, errors: list[float]) -> None:
    """Writes the records of a run whose training error is 0.5 above the test error, evaluated at every other
    step."""
    workdir.mkdir(parents=True)
    records = [
        {"step": step, "top1": 0.5 - error, "images_per_second": 32.0}
        | ({"test_top1": 1 - error, "test_loss": 1.0} if step % 2 == 0 else {})
        for step, error in enumerate(errors, start=1)
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_mean_and_deviation_are_over_seeds_and_a_run_that_diverges_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config, workdir, console):  # type: ignore[no-untyped-def]
        del console
        if config.model.name == "cifar_plain8" and config.seed == 2:
            raise DivergedError("loss is nan at step 2")
        fake_run(Path(workdir), [0.5, 0.05, 0.3, 0.1 * config.seed])

    monkeypatch.setattr(sweep, "run", run)
    assert compare(tmp_path, RESIDUAL, PLAIN, "--seeds", "3", "--json") == 1
    out, err = capsys.readouterr()
    assert "resnet-jax: 1 diverged (plain, seed 2: loss is nan at step 2)" in err
    residual, plain = json.loads(out)["outcomes"]
    assert residual["error_mean"] == pytest.approx(fmean([0, 0.1, 0.2]))
    assert residual["error_std"] == pytest.approx(stdev([0, 0.1, 0.2]))
    assert residual["seconds_mean"] == pytest.approx(4 * 16 / 32)
    assert [run["seed"] for run in plain["runs"]] == [1, 3]
    assert "20.00 ± 14.14 % (1 of 3 diverged)" in (tmp_path / "compare.md").read_text()

    records = [read_metrics(tmp_path / "residual" / f"seed{seed}") for seed in range(3)]
    curve = mean_curve([error_curve(each) for each in records])
    assert curve.steps.tolist() == [2, 4]
    assert curve.test_error.tolist() == pytest.approx([5, 10])
    assert curve.deviation.tolist() == pytest.approx([0, 10])
    assert curve.train_error.tolist() == pytest.approx([77.5, 70])


def test_a_comparison_without_a_finished_run_is_written_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> None:
        raise DivergedError("loss is nan at step 2")

    monkeypatch.setattr(sweep, "run", run)
    assert compare(tmp_path, RESIDUAL, "--seeds", "1") == 1
    assert "diverged" in capsys.readouterr().out
    assert (tmp_path / "compare.csv").read_text().startswith("name,config,model,params,macs,seed,step,error")


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on(tmp_path: Path) -> None:
    """The finished run is not touched again.

    The one that was killed resumes from its checkpoint and ends as undisturbed.
    """
    command = [
        sys.executable,
        "-m",
        "resnet_jax",
        "compare",
        f"one={tiny.PATH}",
        f"two={tiny.PATH},seed=3",
    ]
    command += ["--set", "run.steps=40", "--seeds", "1", "--to", str(tmp_path / "killed")]
    environment = {**os.environ, "XLA_FLAGS": runs.COMPILE_FASTER}  # As the run alone is compiled.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    second = tmp_path / "killed" / "two" / "seed3"
    runs.wait_until(lambda: second.exists() and runs.logged_step(second) >= 20, process)
    process.kill()
    process.communicate()
    first = (tmp_path / "killed" / "one" / "seed0" / "metrics.jsonl").stat().st_mtime_ns
    assert not (tmp_path / "killed" / "compare.json").exists()
    stood = steps_in(second)[-1]

    began = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "1 of 2 runs are finished already" in done.stderr
    assert "2 of 2: two, seed 3, done" in done.stderr
    assert (tmp_path / "killed" / "one" / "seed0" / "metrics.jsonl").stat().st_mtime_ns == first
    assert [record["step"] for record in read_metrics(second) if record["time"] > began] == list(
        range(stood + 1, 41)
    )
    code, _, err = runs.finish(runs.start(tmp_path / "alone", "--config.run.steps=40", "--config.seed=3"))
    assert code == 0, err
    runs.assert_same_outcome(second, tmp_path / "alone")
