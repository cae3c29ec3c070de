"""The paper's recipes run from their own configs: some steps, an evaluation, and on after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.data.sources import open_source
from resnet_jax.entry import train
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.logging import read_metrics
from tests.data.stand_in import TEST, TRAIN, prepare


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("tfds"))
    prepare(directory)
    return directory


def test_cifar_is_read_from_tfdss_format(data_dir: str) -> None:
    train_split, test_split = (open_source("cifar10", split, data_dir=data_dir) for split in ("train", "test"))
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
    check_run(["--config=cifar10", f"--config.run.data_dir={data_dir}"], tmp_path / "run", steps=(60, 100), examples=TEST)
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
    arguments = [f"--config=imagenet:{net}", "--config.data.source=synthetic", "--config.data.synthetic_examples=256"]
    arguments += ["--config.data.synthetic_classes=16", "--config.batch_size=32"]
    check_run(arguments, tmp_path / "run", steps=(2, 4), examples=32)
    assert read_checkpoint(tmp_path / "run").arrays["image_mean"].shape == (3,)
