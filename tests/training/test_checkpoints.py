"""Checkpoints are whole or refused; the newest and the best are kept.

A state of another net is told apart.
"""

import json
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import resnet_jax
from resnet_jax import create_model
from resnet_jax.training.checkpoint_writer import CheckpointWriter, SaveError
from resnet_jax.training.checkpoints import CheckpointError, from_arrays, read_checkpoint, steps_in, to_arrays
from resnet_jax.training.optimizer import sgd
from resnet_jax.training.schedules import step_decay
from resnet_jax.training.state import TrainState, create_state

MODEL = {"name": "cifar_resnet8", "num_classes": 7, "dtype": "float32", "width": 2}
GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoint_v1"


def make_state(*, abstract: bool = False, **changes: Any) -> TrainState:
    model = create_model(**{**MODEL, **changes})
    optimizer = sgd(step_decay(0.1, boundaries=()), momentum=0.9, weight_decay=1e-4)
    mean = np.arange(3, dtype=np.float32)
    create = partial(create_state, model, optimizer, seed=1, image_shape=(8, 8, 3), image_mean=mean)
    return jax.eval_shape(create) if abstract else jax.device_get(create())


@pytest.fixture(scope="module")
def state() -> TrainState:
    return make_state()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[CheckpointWriter]:
    writer = CheckpointWriter(tmp_path, keep=2, config={"seed": 1}, model=MODEL)
    yield writer
    writer.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, state: TrainState) -> Path:
    workdir = tmp_path_factory.mktemp("saved")
    writer = CheckpointWriter(workdir, keep=2, config={"seed": 1}, model=MODEL)
    writer.save(4, state, {"top1": 0.5})
    writer.save(9, state, {"top1": 0.25})
    writer.wait()
    writer.close()
    return workdir


def assert_equal(one: TrainState, other: TrainState) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_is_saved_is_read_back(saved: Path, state: TrainState) -> None:
    checkpoint = read_checkpoint(saved)
    assert (checkpoint.step, checkpoint.config, checkpoint.model) == (9, {"seed": 1}, MODEL)
    assert_equal(from_arrays(state, checkpoint.arrays), state)
    assert read_checkpoint(saved, step=4).step == 4


def test_newest_and_best_are_both_there_after_twenty_saves(
    writer: CheckpointWriter, tmp_path: Path, state: TrainState
) -> None:
    for step in range(1, 21):
        writer.save(step, state, {"top1": 0.9 if step == 7 else 0.1} if step % 2 else None)
    writer.wait()
    assert steps_in(tmp_path) == [7, 19, 20]


def test_the_best_is_chosen_by_the_metric_that_is_named(tmp_path: Path, state: TrainState) -> None:
    writer = CheckpointWriter(tmp_path, keep=1, config={}, model=MODEL, score="mAP")
    for step, score in enumerate((0.1, 0.9, 0.2), start=1):
        writer.save(step, state, {"top1": 1 - score, "mAP": score})
    writer.wait()
    writer.close()
    assert steps_in(tmp_path) == [2, 3]


def test_class_names_and_preprocessing_are_part_of_a_checkpoint(tmp_path: Path, state: TrainState) -> None:
    preprocessing = {"resize_shorter_side": 36, "center_crop": 32, "interpolation": "antialias"}
    writer = CheckpointWriter(
        tmp_path, keep=1, config={}, model=MODEL, class_names=["cat", "dog"], preprocessing=preprocessing
    )
    writer.save(1, state)
    writer.wait()
    writer.close()
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.class_names == ("cat", "dog")
    assert checkpoint.preprocessing == preprocessing


def test_the_best_is_kept_over_a_restart(tmp_path: Path, state: TrainState) -> None:
    for scores in ((0.1, 0.9, 0.2), (0.3, 0.4, 0.5)):
        writer = CheckpointWriter(tmp_path, keep=1, config={}, model=MODEL)
        for score in scores:
            writer.save((steps_in(tmp_path) or [0])[-1] + 1, state, {"top1": score})
            writer.wait()
        writer.close()
    assert steps_in(tmp_path) == [2, 6]


def test_no_flipped_bit_is_restored(saved: Path, tmp_path: Path) -> None:
    files = sorted(path for path in (saved / "checkpoints" / "9").glob("**/*") if path.is_file())
    dice = random.Random(0)
    # Half of the flips in any file, half by size of the file, that is mostly in the arrays.
    chosen = [dice.choice(files) for _ in range(50)]
    chosen += dice.choices(files, weights=[file.stat().st_size for file in files], k=50)
    for number, file in enumerate(chosen):
        workdir = tmp_path / str(number)
        shutil.copytree(saved, workdir)
        victim = workdir / file.relative_to(saved)
        content = bytearray(victim.read_bytes())
        bit = dice.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        victim.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"is damaged.*go on from step 4"):
            read_checkpoint(workdir)
        shutil.rmtree(workdir)


@pytest.mark.parametrize("damage", ["truncate", "delete", "empty"])
def test_every_damaged_file_is_noticed(saved: Path, tmp_path: Path, damage: str) -> None:
    for file in sorted(path for path in (saved / "checkpoints" / "9").glob("**/*") if path.is_file()):
        workdir = tmp_path / "run"
        shutil.copytree(saved, workdir)
        victim = workdir / file.relative_to(saved)
        if damage == "delete":
            victim.unlink()
        else:
            victim.write_bytes(victim.read_bytes()[: -1 if damage == "truncate" else 0])
        with pytest.raises(CheckpointError, match="is damaged"):
            read_checkpoint(workdir)
        shutil.rmtree(workdir)


def test_a_commit_that_was_cut_short_after_the_rename_is_whole(saved: Path, tmp_path: Path) -> None:
    """Before the sums of the files that a commit itself writes are recorded, the arrays are checked all the
    same."""
    shutil.copytree(saved, tmp_path / "run")
    sums = tmp_path / "run" / "checkpoints" / "9" / "checksums.json"
    recorded = json.loads(sums.read_text())
    sums.write_text(json.dumps({name: value for name, value in recorded.items() if "/" in name}))
    assert read_checkpoint(tmp_path / "run").step == 9


def test_an_unfinished_save_is_not_a_checkpoint(saved: Path, tmp_path: Path, state: TrainState) -> None:
    shutil.copytree(saved, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(checkpoints / "9", checkpoints / "12.orbax-checkpoint-tmp")
    assert steps_in(tmp_path / "run") == [4, 9]
    writer = CheckpointWriter(tmp_path / "run", keep=2, config={}, model=MODEL)
    writer.save(12, state)
    writer.wait()
    writer.close()
    assert sorted(path.name for path in checkpoints.iterdir()) == ["12", "4", "9"]


def test_a_state_of_another_net_is_refused_with_what_differs(saved: Path) -> None:
    arrays = read_checkpoint(saved).arrays
    with pytest.raises(CheckpointError, match=r"params/stage1/block2/conv1/kernel is missing.*and \d+ more"):
        from_arrays(make_state(abstract=True, name="cifar_resnet14"), arrays)
    with pytest.raises(CheckpointError, match=r"head/kernel is float32\[8, 7\], expected float32\[8, 5\]"):
        from_arrays(make_state(abstract=True, num_classes=5), arrays)
    with pytest.raises(CheckpointError, match="projection/kernel is left over"):
        from_arrays(make_state(abstract=True), to_arrays(make_state(abstract=True, shortcut="C")))
    doubled = {name: array.astype(np.float64) for name, array in arrays.items()}
    with pytest.raises(CheckpointError, match=r"is float64\[.*expected float32\["):
        from_arrays(make_state(abstract=True), doubled)


def test_missing_and_newer_checkpoints_are_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint; train into it with"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint of step 5; it has 4, 9"):
        read_checkpoint(saved, step=5)


def test_a_failed_save_says_what_to_do(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = CheckpointWriter(tmp_path, keep=2, config={}, model=MODEL)
    writer.save(1, state)
    writer.wait()

    def fail(**_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_write_checksums", fail)
    writer._saving = 2
    with pytest.raises(
        SaveError, match=r"step 2 could not be written.*No space left on device.*resumes from step 1"
    ):
        writer.wait()
    writer.close()


def test_a_checkpoint_of_format_1_keeps_loading() -> None:
    """tests/golden/checkpoint_v1 was written once and is not written again.

    Its logits are stored beside it.
    """
    model, variables = resnet_jax.load_checkpoint(str(GOLDEN))
    images = np.linspace(-1, 1, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
    expected = np.load(GOLDEN / "logits.npy")
    np.testing.assert_allclose(model.apply(variables, images), expected, rtol=1e-4, atol=1e-5)
    checkpoint = read_checkpoint(GOLDEN)
    assert int(from_arrays(make_state(abstract=True), checkpoint.arrays).step) == 3
    assert (checkpoint.class_names, checkpoint.preprocessing) == (None, None)
