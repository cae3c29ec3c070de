"""Runs that are trained together, over a vmapped axis of seeds, are those that are trained one by one."""

import signal
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from rich.console import Console

from resnet_jax.data.batches import HostBatch
from resnet_jax.training.checkpoints import CheckpointError, read_checkpoint, steps_in
from resnet_jax.training.config import resolve
from resnet_jax.training.logging import TIME_FIELDS, read_metrics
from resnet_jax.training.loop import Interrupted
from resnet_jax.training.run import run
from resnet_jax.training.vmapped_seeds import SeedsTrainer, run_vmapped_seeds
from tests.training import runs, tiny

SEEDS = (0, 3)
CHANGES = {
    "model.dtype": "float64",
    "model.group_size": 16,
    "optimizer.learning_rate": 0.02,
    "run.checkpoint_every": 4,
    "run.evaluate_every": 5,
    "data.synthetic_examples": 60,
}


def assert_equal_runs(one: Path, other: Path) -> None:
    first, second = read_checkpoint(one), read_checkpoint(other)
    assert first.step == second.step
    assert first.config == second.config
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        difference = np.linalg.norm(array - second.arrays[name])
        assert difference <= 1e-9 * max(1, np.linalg.norm(array)), name
    records, others = read_metrics(one), read_metrics(other)
    assert [record.keys() for record in records] == [record.keys() for record in others]
    for record, with_others in zip(records, others, strict=True):
        names = record.keys() - TIME_FIELDS
        np.testing.assert_allclose(
            [record[n] for n in sorted(names)], [with_others[n] for n in sorted(names)], rtol=1e-9, atol=1e-9
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stops", [(10,), pytest.param((5, 10), marks=pytest.mark.slow)])
def test_they_end_as_those_trained_one_by_one_and_go_on_from_where_they_stand(
    tmp_path: Path, stops: tuple[int, ...]
) -> None:
    """Groups of 16 span the two devices."""
    quiet = Console(quiet=True)
    for steps in stops:
        configs = [
            resolve(tiny.get_config(**CHANGES, **{"seed": seed, "run.steps": steps})) for seed in SEEDS
        ]
        run_vmapped_seeds(configs, [tmp_path / f"together{seed}" for seed in SEEDS], quiet)
    run(configs[1], tmp_path / "alone3", quiet)
    assert_equal_runs(tmp_path / "together3", tmp_path / "alone3")
    assert [runs.check_wall_time(tmp_path / f"together{seed}") for seed in SEEDS] == [len(stops)] * len(SEEDS)
    assert steps_in(epath.Path(tmp_path / "together3"))[-2:] == [8, 10]
    one, other = (
        read_checkpoint(tmp_path / f"together{seed}").arrays["params/head/kernel"] for seed in SEEDS
    )
    assert not np.allclose(one, other)


@pytest.mark.slow
def test_a_signal_saves_all_seeds_and_a_damaged_checkpoint_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {"run.steps": 6, "run.checkpoint_every": 2, "data.synthetic_examples": 60}
    configs = [resolve(tiny.get_config(**fields, seed=seed)) for seed in SEEDS]
    workdirs = [epath.Path(tmp_path / f"seed{seed}") for seed in SEEDS]
    make_step = SeedsTrainer.step

    def signalled(trainer: SeedsTrainer, number: int, batch: HostBatch) -> object:
        if number == 3:
            signal.raise_signal(signal.SIGTERM)
        return make_step(trainer, number, batch)

    monkeypatch.setattr(SeedsTrainer, "step", signalled)
    with pytest.raises(Interrupted, match="stopped and saved at step 3"):
        run_vmapped_seeds(configs, workdirs, Console(quiet=True))
    assert [steps_in(workdir) for workdir in workdirs] == [[2, 3], [2, 3]]

    monkeypatch.setattr(SeedsTrainer, "step", make_step)
    (workdirs[0] / "checkpoints" / "3" / "checksums.json").unlink()
    with pytest.raises(CheckpointError, match=r"seed0 at step 2, .*seed3 at step 3"):
        run_vmapped_seeds(configs, workdirs, Console(quiet=True))
    assert "warning" in capsys.readouterr().err
    (workdirs[1] / "checkpoints" / "3" / "checksums.json").unlink()
    run_vmapped_seeds(configs, workdirs, Console(quiet=True))
    assert [steps_in(workdir)[-1] for workdir in workdirs] == [6, 6]
    assert [record["step"] for record in read_metrics(workdirs[0])] == [1, 2, 3, 4, 5, 6]
