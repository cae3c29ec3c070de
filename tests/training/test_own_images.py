"""A folder of one's own images is trained by one command; what was chosen is said and can be repeated."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from resnet_jax.cli import main
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.own_images import look_at_folder
from resnet_jax.training.recipes import load_recipe
from resnet_jax.training.workdir import read_config
from tests.data.colors import color_image, write_colors
from tests.data.messy import write_messy
from tests.interop import nets
from tests.interop.test_real_files import cifar
from tests.training.runs import train


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_layout_is_found(tmp_path: Path) -> None:
    alone = write_colors(tmp_path / "alone", ["a", "b"], splits={"photos": 40}) / "photos"
    facts = look_at_folder(str(alone))
    assert (facts.train_split, facts.test_split, facts.classes, facts.shorter_side) == (
        "train",
        "test",
        2,
        16,
    )
    for split in ("val", "validation", "valid", "test"):
        root = write_colors(tmp_path / split, ["a", "b"], splits={"train": 3, split: 1})
        assert look_at_folder(str(root)).test_split == split
    only = write_colors(tmp_path / "only", ["a"], splits={"train": 3})
    with pytest.raises(ConfigError, match="none to test on"):
        look_at_folder(str(only))


def test_what_is_chosen_fits_and_what_is_given_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_colors(tmp_path / "photos", ["a", "b"], splits={"train": 20, "val": 2})
    config = load_recipe("folder", [("data.source", str(root))])
    assert (config.data.image_size, config.model.name, config.batch_size) == (32, "cifar_resnet20", 32)
    said = capsys.readouterr().err
    words = shlex.split(said[said.index("resnet-jax train") :])
    pairs = [word.removeprefix("--config.").partition("=") for word in words[3:]]
    again = load_recipe("folder", [(path, value) for path, _, value in pairs])
    assert again == config
    given = load_recipe(
        "folder", [("data.source", str(root)), ("batch_size", "8"), ("data.image_size", "64")]
    )
    assert (given.batch_size, given.data.image_size, given.data.test_scale) == (8, 64, 72)
    with pytest.raises(ConfigError, match=r"name the folder of your images: --config.data.source=FOLDER"):
        load_recipe("folder", [("data.source", "digits")])
    assert train(["--config=folder", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "name it with --config.data.source" in capsys.readouterr().err


def test_epochs_are_turned_into_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_colors(tmp_path / "photos", ["a", "b"], splits={"train": 25, "val": 2})
    config = load_recipe("folder", [("data.source", str(root)), ("run.epochs", "3"), ("batch_size", "20")])
    assert config.run.steps == 8  # 3 · 50 / 20, rounded up.
    assert config.optimizer.boundaries == (4, 6)
    assert "3 epochs are 8 steps of 20 images" in capsys.readouterr().err


SHORT = ["--config.run.steps=2", "--config.model.name=cifar_resnet8", "--config.run.devices=1"]


def test_class_counts_come_first_and_the_accuracy_of_each_class_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    root = write_messy(tmp_path / "photos", count=16)
    command = ["--config=folder", f"--config.data.source={root}", f"--workdir={tmp_path / 'run'}", *SHORT]
    assert train(command) == 0
    out = capsys.readouterr().out
    assert re.search(r"training images: apples \d+, leaves \d+, sky \d+", out)
    assert re.search(r"test images: apples \d+, leaves \d+, sky \d+", out)
    assert "balanced accuracy" in out
    assert re.search(r"apples +\d+ +[\d.]+%", out)
    assert list(cache.glob("resnet_jax/means/*.npy"))
    assert main(["evaluate", f"--workdir={tmp_path / 'run'}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"top1", "examples", "balanced_accuracy", "macro_f1"} <= found.keys()


def test_a_schedule_that_is_never_reached_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [f"--workdir={tmp_path / 'run'}", "--config.run.steps=1", "--config.model.name=cifar_resnet8"]
    assert train([*command, "--config.run.devices=1"]) == 0
    said = capsys.readouterr().out
    assert "run.steps is 1, so the learning rate does not fall at 150, 225" in said


def test_a_file_of_weights_is_fine_tuned_at_its_own_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_colors(tmp_path / "photos", ["a", "b", "c"], splits={"train": 12, "val": 2})
    save_file(cifar(), tmp_path / "net.safetensors")
    command = [f"--config=finetune:{tmp_path / 'net.safetensors'}", f"--config.data.source={root}"]
    short = [f"--workdir={tmp_path / 'run'}", "--config.run.steps=2", "--config.run.devices=1"]
    assert train([*command, *short]) == 0
    said = capsys.readouterr()
    assert "the last layer is fresh, for 3 classes instead of 5" in said.out
    assert "is imported into" in said.err
    config = read_config(tmp_path / "run")
    assert (config.data.image_size, config.data.test_scale, config.data.scales) == (32, 32, (32, 60))
    assert (config.model.name, config.data.test_split, config.batch_size) == ("cifar_resnet8", "val", 32)
    assert train([*command, *short]) == 0
    assert "is imported into" not in capsys.readouterr().err


def test_the_weights_may_be_named_by_the_field(tmp_path: Path) -> None:
    root = write_colors(tmp_path / "photos", ["a", "b"], splits={"train": 12, "val": 2})
    save_file(cifar(), tmp_path / "net.safetensors")
    given = [("initial.source", str(tmp_path / "net.safetensors")), ("data.source", str(root))]
    by_field = load_recipe("finetune", given)
    by_argument = load_recipe(f"finetune:{tmp_path / 'net.safetensors'}", given[1:])
    assert by_field.initial.source == by_argument.initial.source
    assert by_field.model.name == by_argument.model.name == "cifar_resnet8"
    assert by_field.data == by_argument.data


def test_check_lists_every_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_colors(tmp_path / "photos", ["a", "b"], splits={"train": 4, "val": 2})
    assert main(["check", str(root)]) == 0
    assert "train: 8 images of 2 classes: a 4, b 4" in capsys.readouterr().out
    (root / "train" / "a" / "000.png").write_bytes(b"text")
    whole = (root / "val" / "b" / "001.png").read_bytes()
    (root / "val" / "b" / "001.png").write_bytes(whole[: len(whole) // 2])
    (root / "train" / "b" / "notes.txt").write_text("x")
    assert main(["check", str(root), "--json"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [Path(bad["file"]).name for bad in found["bad"]] == ["000.png", "001.png"]
    assert {item["file"] for item in found["left_out"]} == {"train/b/notes.txt"}
    assert "2 of 12 images cannot be read" in captured.err


@pytest.mark.slow
def test_a_messy_folder_is_learned_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_messy(Path("photos"))
    assert train(["--config=folder", "--config.data.source=photos"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--workdir=runs/folder", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] >= 0.9


@pytest.mark.slow
def test_a_file_of_torchvisions_format_is_fine_tuned_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for label, name in enumerate(("a", "b")):
        Path("photos", name).mkdir(parents=True)
        for number in range(12):
            color_image(label, 2, number, side=256).save(Path("photos", name, f"{number}.png"))
    save_file({name: np.asarray(array) for name, array in nets.weights(18).items()}, "resnet18.safetensors")
    command = ["--config=finetune:resnet18.safetensors", "--config.data.source=photos"]
    assert train([*command, "--config.run.steps=4", "--workdir=tuned"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert read_config("tuned").data.image_size == 224
