"""Habits of real life: stray files of desktops, `~`, wrongly called functions, names that are no text."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from resnet_jax.cli import main
from resnet_jax.data.prepare import prepare
from resnet_jax.data.prepared import open_prepared
from resnet_jax.files import is_junk
from resnet_jax.training.checkpoints import DamagedError, read_checkpoint, steps_in
from resnet_jax.training.config import base_config, from_json, to_json, with_overrides
from resnet_jax.training.recipes import load_recipe, recipe_name
from resnet_jax.training.run import run
from tests.data.colors import color_image, write_colors
from tests.training import tiny
from tests.training.runs import TINY, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("habits") / "run"
    run(tiny.get_config(**{"run.steps": 14, "run.devices": 1}), workdir)
    return workdir


STRAY = (".DS_Store", "._state", "Thumbs.db", "desktop.ini", "a (conflicted copy 2026-01-01).json")
STRAY += ("checksums.sync-conflict-20260101-120000-ABC.json",)


@pytest.mark.parametrize("name", STRAY)
def test_stray_files_damage_no_checkpoint(finished: Path, tmp_path: Path, name: str) -> None:
    assert is_junk(name)
    copy = shutil.copytree(finished, tmp_path / "run")
    checkpoint = copy / "checkpoints" / "14"
    folders = (copy, copy / "checkpoints", checkpoint, checkpoint / "state", checkpoint / "description")
    for folder in folders:
        (folder / name).write_bytes(b"\0\0\0\1Bud1")
    assert steps_in(copy) == steps_in(finished)
    assert read_checkpoint(copy).arrays.keys() == read_checkpoint(finished).arrays.keys()


def test_a_run_resumes_beside_stray_files(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "run")
    for file in ("checkpoints/14/.DS_Store", "checkpoints/7/._state", "checkpoints/.DS_Store", ".DS_Store"):
        (copy / file).write_bytes(b"x")
    assert train([f"--config={TINY}", f"--workdir={copy}", "--config.run.steps=21"]) == 0
    assert 21 in steps_in(copy)
    assert not (copy / "damaged").exists()


def test_a_file_that_the_checksums_name_is_still_checked(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "run")
    (copy / "checkpoints" / "14" / "description" / "metadata").unlink()
    with pytest.raises(DamagedError, match="description/metadata is missing"):
        read_checkpoint(copy)
    (copy / "checkpoints" / "14" / "checksums.json").write_text("{}")
    with pytest.raises(DamagedError, match=r"checksums\.json names no files"):
        read_checkpoint(copy)


@pytest.mark.parametrize("name", STRAY)
def test_a_folder_with_stray_files_alone_is_empty(tmp_path: Path, name: str) -> None:
    photos = write_colors(tmp_path / "photos", ["a", "b"], splits={"train": 2, "val": 1})
    for folder in ("set", "run"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"x")
    assert prepare(str(photos), str(tmp_path / "set"))["class_names"] == ["a", "b"]
    (tmp_path / "set" / f"._{name}").write_bytes(b"x")
    assert len(open_prepared(str(tmp_path / "set"), "train")) == 4
    assert prepare(str(photos), str(tmp_path / "set"))["class_names"] == ["a", "b"]
    steps = ["--config.run.steps=1", "--config.run.devices=1"]
    assert train([f"--config={TINY}", f"--workdir={tmp_path / 'run'}", *steps]) == 0


def test_home_is_expanded_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    shutil.copytree(finished, home / "runs" / "first")
    write_colors(home / "photos", ["a", "b"], splits={"train": 2, "val": 1})
    (home / "mine.py").write_text(TINY.read_text())
    assert main(["prepare", "~/photos", "~/prepared"]) == 0
    assert main(["evaluate", "--workdir=~/runs/first", "--predictions=~/found.csv"]) == 0
    assert main(["report", "~/runs/first", "--to=~/report.html"]) == 0
    assert main(["export", "--workdir=~/runs/first", "--to=~/weights.safetensors"]) == 0
    steps = ["--config.run.steps=1", "--config.run.devices=1"]
    assert train(["--config=~/mine.py", "--workdir=~/runs/second", *steps]) == 0
    for made in ("prepared", "found.csv", "report.html", "weights.safetensors", "runs/second"):
        assert (home / made).exists(), made
    assert os.listdir(here) == []
    assert read_checkpoint("~/runs/first").step == 14
    config = load_recipe("finetune:~/runs/first", [("data.source", "~/photos"), ("run.code_dir", "~")])
    assert config.initial.source == str(home / "runs" / "first")
    assert config.data.source == str(home / "photos")
    assert config.run.code_dir == str(home)
    assert recipe_name("finetune:~/runs/first") == "finetune_first"
    capsys.readouterr()


WRONG_CALLS = [
    (
        "optimizer.schedule=optax:cosine_decay_schedule(decay_steps=100)",
        "config.optimizer.schedule is 'optax:cosine_decay_schedule(decay_steps=100)', which is called as "
        "schedule(step, learning_rate=0.1) -> float, and has the signature (init_value",
    ),
    ("optimizer.name=optax:adamw(lr=0.001)", "is called as optimizer(learning_rate=schedule)"),
    ("optimizer.name=optax:sigmoid_binary_cross_entropy", "is called as optimizer(learning_rate=schedule)"),
    (
        "optimizer.loss=optax:softmax_cross_entropy",
        "is called as loss(logits [n, classes], labels int32 [n])",
    ),
    ("optimizer.loss=optax:l2_loss", "is called as loss(logits"),
    ("model.norm=flax.linen:BatchNorm", "config.model.norm is 'flax.linen:BatchNorm', which is called as"),
    ("model.block=flax.linen:Dense", "config.model.block is 'flax.linen:Dense', which is called as block("),
    ("model.activation=flax.linen:Dense(features=3)", "which is called as activation(x) -> x"),
    ("task=flax.linen:Dense", "config.task is 'flax.linen:Dense', which is called as task()"),
]


@pytest.mark.parametrize(("field", "message"), WRONG_CALLS)
def test_a_wrongly_called_function_is_one_line_and_blocks_nothing(
    field: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = f"--workdir={tmp_path / 'run'}"
    changes = ["--config.optimizer.boundaries=()", "--config.run.devices=1", "--config.run.steps=1"]
    assert train([f"--config={TINY}", workdir, *changes, f"--config.{field}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run" / "config.json").exists()


IGNORED = [
    (
        ["optimizer.name=optax:adamw", "optimizer.gradient_clip=1.0"],
        "gradient_clip is 1.0, and the optimizer",
    ),
    (["optimizer.name=optax:sgd", "optimizer.momentum=0.5"], r"give it as an argument, optax:sgd\(…\)"),
    (["optimizer.name=optax:adamw", "optimizer.weight_decay=0.3"], "weight_decay is 0.3"),
    (
        ["optimizer.trust_coefficient=0.1"],
        "the optimizer sgd does not read it; leave the field",
    ),
]


@pytest.mark.parametrize(("fields", "message"), IGNORED)
def test_a_field_that_the_optimizer_ignores_is_refused(
    fields: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--config.{field}" for field in fields]
    assert train([f"--config={TINY}", f"--workdir={tmp_path / 'run'}", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_stored_configs_with_such_fields_still_load() -> None:
    config = with_overrides(base_config(), [("optimizer.name", "optax:adamw"), ("optimizer.momentum", "0.5")])
    assert from_json(to_json(config)).optimizer.momentum == 0.5


def not_utf8(name: bytes) -> str:
    return os.fsdecode(name)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_are_no_utf8_are_escaped_in_every_command(tmp_path: Path, encoding: str) -> None:
    odd = not_utf8(b"caf\xe9")
    photos = write_colors(tmp_path / "photos", ["a", odd], splits={"train": 3, "val": 2})
    color_image(0, 2, 5).save(photos / "val" / "a" / not_utf8(b"na\xefve.png"), "PNG")
    (photos / "val" / "a" / not_utf8(b"n\xf6tes.txt")).write_text("x")
    program = "import sys; from resnet_jax.cli import main\n"
    program += "for line in sys.argv[1:]: assert main(line.split('|')) == 0, line\n"
    fields = {
        "data.source": photos,
        "data.image_size": 16,
        "data.test_scale": 16,
        "data.scales": "(16,16)",
        "data.test_split": "val",
        "data.mean": "channel",
        "batch_size": 4,
        "run.devices": 1,
        "run.steps": 1,
    }
    options = [f"--config={TINY}", *(f"--config.{name}={value}" for name, value in fields.items())]
    workdir = tmp_path / "run"
    lines = [
        ["train", *options, f"--workdir={workdir}"],
        ["prepare", str(photos), str(tmp_path / "set")],
        ["predict", f"--workdir={workdir}", str(photos / "val")],
        ["predict", f"--workdir={workdir}", str(photos / "val"), "--csv"],
        ["predict", f"--workdir={workdir}", str(photos / "val"), "--json"],
        ["evaluate", f"--workdir={workdir}", "--per-class", "--confusion"],
        ["evaluate", f"--workdir={workdir}", f"--predictions={tmp_path / 'found.npz'}", "--json"],
        ["report", str(workdir), f"--to={tmp_path / 'report.html'}"],
    ]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, *("|".join(line) for line in lines)],
        capture_output=True,
        env=environment,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    assert b"Traceback" not in done.stderr
    assert b"left out 1 file: a/n\\udcf6tes.txt (not an image)" in done.stderr
    assert b"caf\\udce9" in done.stdout
    assert b"na\\udcefve.png" in done.stdout
    assert open_prepared(str(tmp_path / "set"), "train").class_names == ["a", odd]
    assert read_checkpoint(workdir).class_names == ("a", odd)
    assert "caf" in (tmp_path / "report.html").read_text("utf-8")
    names = json.loads((workdir / "data.json").read_text())["class_names"]
    assert os.fsencode(names[1]) == b"caf\xe9"


@pytest.mark.parametrize(
    "command",
    [
        lambda data: ["plan", "--config=imagenet_pod", "--topology=v5e:16x16", *data],
        lambda _: ["summary", "resnet18"],
        lambda data: ["config", "imagenet", *data],
        lambda _: ["list"],
    ],
    ids=["plan", "summary", "config", "list"],
)
def test_commands_that_only_tell_prepare_nothing(
    command: Callable[[list[str]], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is downloaded or prepared")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    monkeypatch.setattr("resnet_jax.parallel.plan.compile_for", refuse, raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    arguments = command([f"--set=run.data_dir={tmp_path}"])
    assert main(arguments) in (0, 2)
    assert list(tmp_path.iterdir()) == []
