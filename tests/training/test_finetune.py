"""Fine-tuning: a run that begins with the weights of another, and what may move in it."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from resnet_jax.data.batches import TrainBatches, draws
from resnet_jax.errors import UsageError
from resnet_jax.training.checkpoints import CheckpointError, read_checkpoint
from resnet_jax.training.config import Config, mutable_copy
from resnet_jax.training.logging import read_metrics
from resnet_jax.training.recipes import load_recipe
from resnet_jax.training.run import run
from resnet_jax.training.splits import open_split
from tests.data.photographs import write_folder
from tests.training import tiny

FIRST, SECOND = (0, 1, 2, 3, 4), (9, 5, 6, 7, 8)


def digits(labels: tuple[int, ...], *, steps: int, **changes: Any) -> Config:
    """Returns a recipe of an eight-layer net on some of the digits."""
    fixed = {
        "data.source": "digits",
        "data.labels": labels,
        "data.mirror": False,
        "model.group_size": 16,
        "batch_size": 32,
    }
    ends = {
        "run.devices": 1,
        "run.steps": steps,
        "run.evaluate_every": steps,
        "run.checkpoint_every": steps,
        "optimizer.boundaries": (),
    }
    return tiny.get_config(**fixed, **ends, **changes)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run on the first half of the digits' classes."""
    workdir = tmp_path_factory.mktemp("first") / "run"
    run(digits(FIRST, steps=8), workdir)
    return workdir


def finetune(
    first: Path, workdir: Path, *, labels: tuple[int, ...] = SECOND[:3], **changes: Any
) -> tuple[dict, dict, str]:
    """Returns the arrays that a fine-tuning of four steps begins from and ends with, and what it said."""
    said = io.StringIO()
    run(
        digits(labels, steps=4, **{"initial.source": str(first)} | changes),
        workdir,
        Console(file=said, width=300),
    )
    return read_checkpoint(first).arrays, read_checkpoint(workdir).arrays, said.getvalue()


def moved(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    """Returns the weights and statistics that are not the same bits, without the last layer."""
    names = [name for name in before if name.startswith(("params/", "batch_stats/")) and "/head/" not in name]
    return {name for name in names if before[name].tobytes() != after[name].tobytes()}


def test_a_frozen_stage_keeps_its_parameters_and_statistics_bit_for_bit(first: Path, tmp_path: Path) -> None:
    before, after, said = finetune(first, tmp_path / "run", **{"optimizer.frozen": ("stem", "stage[12]")})
    trained = {name for name in before if name.startswith(("params/stage3", "batch_stats/stage3"))}
    assert (
        len(trained) == 10
    )  # Kernels of two convolutions; scale, bias, mean and variance of two normalisations.
    assert moved(before, after) == trained
    assert after["params/head/kernel"].shape == (64, 3)
    np.testing.assert_array_equal(after["image_mean"], before["image_mean"])
    assert f"begins with the weights of {first}; the last layer is fresh, for 3 classes instead of 5" in said


def test_frozen_statistics_stay_where_everything_else_moves(first: Path, tmp_path: Path) -> None:
    before, after, _ = finetune(first, tmp_path / "run", **{"optimizer.frozen_norm": True})
    assert moved(before, after) == {
        name for name in before if name.startswith("params/") and "/head/" not in name
    }


def test_a_kept_head_begins_as_it_was(first: Path, tmp_path: Path) -> None:
    frozen = {"initial.head": "kept", "optimizer.frozen": ("head",)}
    before, after, said = finetune(first, tmp_path / "run", labels=FIRST, **frozen)
    assert after["params/head/kernel"].tobytes() == before["params/head/kernel"].tobytes()
    assert "the last layer is kept: the same 5 classes" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer.frozen": ("stage5",)},
            "pattern 'stage5', which means no module of the net; they are head, stage1, stage2",
        ),
        ({"optimizer.rate_factors": ("layer1=0.1",)}, "pattern 'layer1', which means no module"),
        (
            {"optimizer.rate_factors": ("stage1",)},
            r"rate_factors is \('stage1',\); it must be patterns with a factor",
        ),
        ({"optimizer.rate_factors": ("stage1=-1",)}, "it must be patterns with a factor of 0 or more"),
        ({"optimizer.frozen": ("*",)}, "frozen means every module of the net"),
        ({"initial.head": "kept"}, "has 5 classes where the data has 3; set --config.initial.head=fresh"),
        (
            {"initial.head": "kept", "labels": (0, 1, 2, 4, 3)},
            "trained with: '3' has label 4 instead of 3; '4' has label 3 instead of 4. Set --config.initial",
        ),
        ({"initial.head": "kept", "labels": (5, 6, 7, 8, 9)}, "trained with: '0' is missing"),
        ({"initial.head": "old"}, "config.initial.head is 'old'; it must be one of fresh, kept"),
        ({"model.name": "cifar_resnet14"}, "name is 'cifar_resnet14', and the net of .* has 'cifar_resnet8'"),
        ({"labels": (5, 5)}, r"config.data.labels is \(5, 5\); it must be different labels from 0 to 9"),
        ({"labels": (5, 10)}, r"config.data.labels is \(5, 10\)"),
    ],
)
def test_what_cannot_be_meant_is_named(
    first: Path, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        finetune(first, tmp_path / "run", **changes)


def test_a_run_goes_on_without_the_weights_that_it_began_with(first: Path, tmp_path: Path) -> None:
    shutil.copytree(first, tmp_path / "source")
    config = digits(SECOND[:3], steps=2, **{"initial.source": str(tmp_path / "source")})
    run(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "source")
    config.run.steps = 4
    run(config, tmp_path / "run")
    _, undisturbed, _ = finetune(first, tmp_path / "undisturbed")
    arrays = read_checkpoint(tmp_path / "run").arrays
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        n: array.tobytes() for n, array in undisturbed.items()
    }


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing"):
        finetune(tmp_path / "nothing", tmp_path / "run")


def twenty(
    labels: tuple[int, ...], seed: int, *, steps: int, spec: str = "digits_resnet20", **changes: Any
) -> Config:
    """Returns a recipe of 20 layers on some of the digits, in batches of 64."""
    config = mutable_copy(load_recipe(spec))
    fixed = {
        "seed": seed,
        "batch_size": 64,
        "data.labels": labels,
        "run.steps": steps,
        "run.tensorboard": False,
        "run.devices": 1,
    }
    config.update_from_flattened_dict(fixed | changes)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fine_tuning_to_the_other_half_of_the_digits_beats_training_from_scratch(
    seed: int, tmp_path: Path
) -> None:
    run(twenty(FIRST, seed, steps=100, **{"optimizer.boundaries": (70,)}), tmp_path / "first")
    body_and_head = {"optimizer.learning_rate": 0.01, "optimizer.rate_factors": ("head=10",)}
    few = {
        "tuned": twenty(SECOND, seed, steps=20, spec=f"finetune:{tmp_path / 'first'}", **body_and_head),
        "scratch": twenty(SECOND, seed, steps=20),
        "slower scratch": twenty(SECOND, seed, steps=20, **{"optimizer.learning_rate": 0.01}),
    }
    accuracy = {}
    for name, config in few.items():
        run(config, tmp_path / name)
        accuracy[name] = read_metrics(tmp_path / name)[-1]["test_top1"]
    print(f"seed {seed}: {accuracy}")
    assert accuracy["tuned"] > max(accuracy["scratch"], accuracy["slower scratch"])


def test_some_classes_of_a_folder_are_still_seen_through_random_crops(tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path / "photographs", train=4, val=1))
    config = tiny.get_config(
        **{"data.source": folder, "data.image_size": 32, "data.scales": (40, 80), "data.test_scale": 40}
    )
    whole = open_split(config, "train")
    config.data.labels = (2, 0)
    some = open_split(config, "train")
    assert (len(some), list(some.class_names)) == (8, ["negative", "china"])
    batches = TrainBatches(some, batch_size=8, seed=0, share=slice(None))
    batch, later = batches[0], batches[1]
    old = np.array([0, 1, 2, 3, 8, 9, 10, 11])[batches.examples_at(np.arange(8))]
    images, labels, _ = whole.read(old, draws(0, 0, 8))
    np.testing.assert_array_equal(batch["image"], images)
    np.testing.assert_array_equal(np.array([2, 0])[batch["label"]], labels)
    order = np.argsort(batches.examples_at(np.arange(8))), np.argsort(batches.examples_at(np.arange(8, 16)))
    assert (batch["image"][order[0]] != later["image"][order[1]]).any((1, 2, 3)).all()
