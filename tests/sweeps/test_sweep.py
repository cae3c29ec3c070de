"""What of a sweep is trained, in which groups, and what is shown of it."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from resnet_jax.sweeps import sweep
from resnet_jax.sweeps.errors_over_seeds import CurvePoint, error_curve, format_error, mean_curve
from resnet_jax.sweeps.scaled_recipes import scale_steps
from resnet_jax.sweeps.sweep import SweepRun, train_missing
from resnet_jax.training.config import with_fields
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.loop import DivergedError, Interrupted
from resnet_jax.training.workdir import WorkdirError, store_config
from tests.training import tiny


def sweep_of(folder: Path, seeds: int, **fields: object) -> list[SweepRun]:
    return [
        SweepRun("net", tiny.get_config(seed=seed, **fields), folder / f"net{seed}") for seed in range(seeds)
    ]


def test_a_terminal_shows_a_bar_over_runs_and_what_the_present_one_says(tmp_path: Path) -> None:
    runs = sweep_of(tmp_path, 2, **{"run.steps": 2})
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=150)
    assert train_missing(runs, console, advice="") == {}
    assert "net, seed 0: step 2/2: loss" in screen.getvalue()
    assert "2 of 2: net, seed 1, done" in screen.getvalue()
    assert all(run.finished for run in runs)
    assert train_missing(runs, console, advice="") == {}
    assert "2 of 2 runs are finished already" in screen.getvalue()


def test_auto_is_no_on_cpu_and_elsewhere_what_was_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    group = sweep_of(tmp_path, 2)
    monkeypatch.setattr(sweep, "seconds_per_step", lambda *_: {"together": taken, "separate": 2.0})
    taken = 1.0
    assert not sweep._faster_together(group, "auto")
    monkeypatch.setattr(sweep.jax, "default_backend", lambda: "gpu")
    assert sweep._faster_together(group, "auto")
    taken = 3.0
    assert not sweep._faster_together(group, "auto")


def test_seeds_that_stand_at_one_step_are_trained_together_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, alone, stand = [], [], {"net0": 2, "net1": 0, "net2": 0}
    monkeypatch.setattr(
        sweep, "steps_in", lambda workdir: [stand[workdir.name]] if stand.get(workdir.name) else []
    )
    monkeypatch.setattr(SweepRun, "check", lambda *_: None)

    def run_vmapped_seeds(configs, workdirs, console):  # type: ignore[no-untyped-def]
        del workdirs, console
        groups.append([config.seed for config in configs])
        if len(groups) == 2:
            raise DivergedError("loss of seed 1 is nan")

    monkeypatch.setattr(sweep, "run_vmapped_seeds", run_vmapped_seeds)
    monkeypatch.setattr(sweep, "run", lambda config, *_: alone.append(config.seed))
    for vmap in ("yes", "yes", "auto", "no"):
        train_missing(sweep_of(tmp_path, 3), advice="", vmap=vmap)
    assert groups == [[1, 2], [1, 2]]
    assert alone == [0, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    with pytest.raises(ConfigError, match="--vmap is 'maybe'; allowed are auto, yes, no"):
        train_missing([], advice="", vmap="maybe")


def test_a_run_that_diverges_is_named_and_the_others_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def run(config, workdir, console):  # type: ignore[no-untyped-def]
        del workdir, console
        trained.append(config.seed)
        if config.seed == 1:
            raise DivergedError("loss is nan at step 2")

    monkeypatch.setattr(sweep, "run", run)
    runs = sweep_of(tmp_path, 3)
    screen = io.StringIO()
    assert train_missing(runs, Console(file=screen), advice="") == {runs[1]: "loss is nan at step 2"}
    assert trained == [0, 1, 2]
    assert "2 of 3: net, seed 1, diverged: loss is nan at step 2" in screen.getvalue()


def test_ctrl_c_says_how_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run", run)
    with pytest.raises(Interrupted, match="stopped in net, seed 0; run the same command again"):
        train_missing(sweep_of(tmp_path, 1), advice="")


def test_another_run_in_a_workdir_is_refused_once_it_has_a_checkpoint(tmp_path: Path) -> None:
    run = SweepRun("net", tiny.get_config(), tmp_path)
    other = with_fields(run.config, {"optimizer.momentum": 0.5})
    store_config(tmp_path, other)
    run.check("")
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    with pytest.raises(WorkdirError, match=r"another run than net, seed 0: .*momentum: 0.5 -> 0.9; move it"):
        run.check("move it")


def test_steps_and_all_that_is_counted_in_them_are_scaled() -> None:
    recipe = with_fields(
        tiny.get_config(), {"run.steps": 100, "run.log_every": 4, "optimizer.boundaries": (40, 41, 80)}
    )
    scaled = scale_steps(recipe, 0.1)
    assert (scaled.run.steps, scaled.run.log_every, scaled.optimizer.boundaries) == (10, 1, (4, 8))
    assert scaled.optimizer.warmup_steps == recipe.optimizer.warmup_steps == 0
    assert scale_steps(recipe, 1) == recipe
    with pytest.raises(ConfigError, match="--budget is nan; it must be above 0"):
        scale_steps(recipe, float("nan"))


def test_mean_curves_are_over_the_steps_that_all_runs_reached() -> None:
    records = [
        {"step": step, "top1": 0.1 * step} | ({"test_top1": 0.5} if step % 2 == 0 else {})
        for step in range(1, 6)
    ]
    curve = error_curve(records)
    assert curve == [CurvePoint(2, pytest.approx(85), 50), CurvePoint(4, pytest.approx(65), 50)]
    mean = mean_curve([curve, [CurvePoint(2, 75.0, 30.0)]])
    assert [values.tolist() for values in mean] == [
        [2],
        pytest.approx([80]),
        [40],
        pytest.approx([np.std([50, 30], ddof=1)]),
    ]
    assert mean_curve([curve]).deviation.tolist() == [0, 0]
    assert [values.tolist() for values in mean_curve([curve, []])] == [[], [], [], []]


def test_errors_are_written_with_their_deviation() -> None:
    assert [format_error(None), format_error(8.75), format_error(6.61, 0.16)] == ["–", "8.75", "6.61 ± 0.16"]
