"""The paper's recipes run from their own configs: some steps, an evaluation, and on after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.data.datasets import open_source
from resnet_jax.data.prepare import prepare as prepare_folder
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.logging import read_metrics
from tests.data.photographs import write_folder
from tests.data.stand_in import TEST, TRAIN, prepare, prepare_photographs
from tests.training.runs import train


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("tfds"))
    prepare(directory)
    return directory


def test_cifar_is_read_from_tfdss_format(data_dir: str) -> None:
    train_split, test_split = (
        open_source("cifar10", split, data_dir=data_dir) for split in ("train", "test")
    )
    assert (len(train_split), len(test_split), train_split.image_shape) == (TRAIN, TEST, (32, 32, 3))
    parts = [open_source("cifar10", split, data_dir=data_dir) for split in ("train[:500]", "train[500:]")]
    np.testing.assert_array_equal(
        np.concatenate([part.read(range(len(part)))[0] for part in parts]), train_split.read(range(TRAIN))[0]
    )


def check_run(arguments: list[str], workdir: Path, *, steps: tuple[int, int], examples: int) -> None:
    """Runs to the first number of steps and on to the second, and checks what is left."""
    arguments = [*arguments, f"--workdir={workdir}", "--config.run.log_every=1", "--config.run.devices=2"]
    for stop in steps:
        assert train([*arguments, f"--config.run.steps={stop}"]) == 0
    records = read_metrics(workdir)
    assert [record["step"] for record in records] == list(range(1, steps[1] + 1))
    assert all(np.isfinite(record["loss"]) for record in records)
    assert [record["test_examples"] for record in records if "test_top1" in record] == [examples, examples]
    assert read_checkpoint(workdir).step == steps[1]


def test_the_cifar_recipe_runs_with_a_small_net(data_dir: str, tmp_path: Path) -> None:
    arguments = ["--config=cifar10:resnet8", f"--config.run.data_dir={data_dir}", "--config.batch_size=64"]
    check_run(arguments, tmp_path / "run", steps=(3, 5), examples=TEST)


@pytest.mark.slow
def test_the_first_hundred_steps_of_the_cifar_recipe(data_dir: str, tmp_path: Path) -> None:
    check_run(
        ["--config=cifar10", f"--config.run.data_dir={data_dir}"],
        tmp_path / "run",
        steps=(60, 100),
        examples=TEST,
    )
    records = read_metrics(tmp_path / "run")
    assert np.mean([r["loss"] for r in records[-10:]]) < 0.5 * np.mean([r["loss"] for r in records[:10]])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["group_size"] == 64


@pytest.mark.slow
def test_the_warm_up_of_110_layers_begins_at_the_low_rate(data_dir: str, tmp_path: Path) -> None:
    arguments = ["--config=cifar10:resnet110", f"--config.run.data_dir={data_dir}", "--config.batch_size=64"]
    check_run(arguments, tmp_path / "run", steps=(2, 3), examples=TEST)
    assert [record["learning_rate"] for record in read_metrics(tmp_path / "run")] == pytest.approx([0.01] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["resnet18", "resnet50"])
def test_some_steps_of_the_imagenet_recipe_on_synthetic_images(net: str, tmp_path: Path) -> None:
    arguments = [
        f"--config=imagenet:{net}",
        "--config.data.source=synthetic",
        "--config.data.synthetic_examples=256",
    ]
    arguments += ["--config.data.synthetic_classes=16", "--config.batch_size=32"]
    check_run(arguments, tmp_path / "run", steps=(2, 4), examples=32)
    assert read_checkpoint(tmp_path / "run").arrays["image_mean"].shape == (3,)


PHOTOGRAPHS = [
    "--config=imagenet",
    "--config.model.name=cifar_resnet8",
    "--config.model.group_size=4",
    "--config.batch_size=8",
]
"""The ImageNet recipe at 224 pixels with a small net."""


def test_the_imagenet_recipe_runs_on_a_folder_of_photographs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "photographs", train=12, val=4)
    (folder / "train" / "flower" / "0003.jpg").write_text("text")
    arguments = [*PHOTOGRAPHS, f"--config.data.source={folder}", "--config.data.corrupt=skip"]
    check_run(
        arguments, tmp_path / "run", steps=(3, 5), examples=12
    )  # Two evaluations of all twelve, the last batch masked.
    records = read_metrics(tmp_path / "run")
    assert all(record["images_per_second"] > 0 and 0 <= record["input_share"] <= 1 for record in records)
    out, err = capfd.readouterr()
    lines = [line for line in out.splitlines() if line.startswith("step ")]
    shares = {f"step {record['step']}/": record["input_share"] for record in records}
    for line in lines:
        share = next(share for step, share in shares.items() if line.startswith(step))
        assert "images/s" in line
        assert ("waiting for input" in line) == (share >= 0.01)
    assert lines
    assert "left out" in err
    assert "flower/0003.jpg (example 15): it is not an image" in err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "prepared", "raw", "tfds", "processes"])
def test_three_hundred_photographs_resumed_end_as_undisturbed(kind: str, tmp_path: Path) -> None:
    """Whatever the source, a run that was stopped ends with the bits of one that was not."""
    source = str(tmp_path / "photographs")
    if kind == "tfds":
        prepare_photographs(str(tmp_path))
        source = "photographs"
    else:
        write_folder(tmp_path / "photographs", train=100, val=9)
    if kind in ("prepared", "raw"):
        prepare_folder(source, str(tmp_path / "set"), shard_examples=64, raw_share=float(kind == "raw"))
        source = str(tmp_path / "set")
    arguments = [*PHOTOGRAPHS, f"--config.data.source={source}", f"--config.run.data_dir={tmp_path}"]
    arguments += [f"--config.run.worker_processes={2 * (kind == 'processes')}"]
    check_run(arguments, tmp_path / "resumed", steps=(5, 9), examples=12 if kind == "tfds" else 27)
    whole = [
        *arguments,
        f"--workdir={tmp_path / 'whole'}",
        "--config.run.log_every=1",
        "--config.run.devices=2",
    ]
    assert train([*whole, "--config.run.steps=9"]) == 0
    one, other = read_checkpoint(tmp_path / "resumed").arrays, read_checkpoint(tmp_path / "whole").arrays
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
