"""What is wrong with data is said in one line that names it, by the command that meets it, and nothing
half-written is left."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_jax import cli
from resnet_jax.data.prepare import prepare
from resnet_jax.data.prepared import MANIFEST
from resnet_jax.errors import USAGE
from tests.data.photographs import write_folder
from tests.data.test_decode import jpeg_claiming
from tests.training.runs import train


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def without_images(folder: Path) -> None:
    for file in (folder / "train" / "flower").iterdir():
        file.unlink()


def unreadable(folder: Path) -> None:
    file = folder / "train" / "flower" / "0001.jpg"
    file.unlink()
    file.symlink_to("nowhere.jpg")


def truncated(folder: Path) -> None:
    source = folder.rename(folder.with_name("images"))
    prepare(str(source), str(folder))
    shard = folder / "train-00000-of-00001.array_record"
    shard.write_bytes(shard.read_bytes()[:-1000])


def without_class(folder: Path) -> None:
    shutil.rmtree(folder / "val" / "flower")


def replaced(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "train" / "flower" / "0001.jpg").write_bytes(content) and None


def cut(folder: Path) -> None:
    file = folder / "train" / "flower" / "0001.jpg"
    file.write_bytes(file.read_bytes()[:2000])


def nothing(folder: Path) -> None:
    del folder


FILE = r"train/flower/0001.jpg \(example 4\)"
BAD: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "empty folder": (emptied, [], r"has no split 'train'; its folders are none"),
    "class without images": (without_images, [], r"class 'flower' has no images in .*train/flower"),
    "unreadable file": (unreadable, [], FILE + " cannot be read: No such file"),
    "corrupt JPEG": (cut, [], FILE + ": the JPEG is damaged or cut short.*config.data.corrupt=skip"),
    "zero-byte file": (replaced(b""), [], FILE + ": the file is empty"),
    "text file named .jpg": (replaced(b"text"), [], FILE + ": it is not an image"),
    "huge dimensions": (
        replaced(jpeg_claiming(65500, 65500)),
        [],
        FILE + ": it claims to be 65500×65500 pixels",
    ),
    "missing split": (
        nothing,
        ["--config.data.test_split=holdout"],
        r"has no split 'holdout'.*its folders are train, val",
    ),
    "unknown name": (nothing, ["--config.data.source=imagenett"], r"unknown data set 'imagenett'"),
    "wrong number of classes": (
        without_class,
        [],
        r"has 3 classes and the test split 2.*In the test split, 'flower' is missing",
    ),
    "truncated ArrayRecord": (truncated, [], r"train-00000-of-00001.array_record has \d+ of its \d+ bytes"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photographs", train=3, val=2)


@pytest.mark.parametrize("kind", BAD)
def test_training_on_it_is_refused_in_one_line(
    folder: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, arguments, message = BAD[kind]
    spoil(folder)
    command = [
        "--config=imagenet",
        f"--config.data.source={folder}",
        f"--workdir={tmp_path / 'run'}",
        *arguments,
    ]
    command += [
        "--config.model.name=cifar_resnet8",
        "--config.batch_size=8",
        "--config.model.group_size=8",
        "--config.run.steps=1",
        "--config.data.mean=channel",
    ]
    assert train(command) == USAGE
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("resnet-jax: ")]
    assert len(errors) == 1
    assert re.search(message, errors[0])
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize(
    "kind", ["empty folder", "class without images", "unreadable file", "zero-byte file", "huge dimensions"]
)
def test_preparing_it_is_refused_and_leaves_no_set(
    folder: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    BAD[kind][0](folder)
    assert cli.main(["prepare", str(folder), str(tmp_path / "set")]) == USAGE
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert not list((tmp_path / "set").glob(MANIFEST)) + list((tmp_path / "set").glob("*partial*"))


WITH_LITTLE_ROOM = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); "
WITH_LITTLE_ROOM += "from resnet_jax.cli import main; sys.exit(main(sys.argv[1:]))"
"""A command whose files cannot grow beyond 50 kB, as on a disk that is full."""


def test_a_full_disk_is_named_and_the_same_command_finishes(folder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        WITH_LITTLE_ROOM,
        "prepare",
        str(folder),
        str(tmp_path / "set"),
        "--shard-examples=4",
    ]
    full = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert full.returncode == 1
    assert full.stderr.startswith("resnet-jax: File too large (")
    assert full.stderr.count("\n") == 1
    left = {path.name for path in (tmp_path / "set").iterdir()}
    assert not {name for name in left if name.endswith(".partial")} | (left & {MANIFEST})
    prepare(str(folder), str(tmp_path / "set"), shard_examples=4)
    prepare(str(folder), str(tmp_path / "whole"), shard_examples=4)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "set" / path.name).read_bytes()


def test_a_destination_with_other_files_is_left_as_it_was(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    (tmp_path / "file").write_text("")
    for dest, message in (
        ("thesis", "is not empty"),
        ("file", "a file is in its place"),
        ("photographs/new", "taken for a split"),
    ):
        assert cli.main(["prepare", str(folder), str(tmp_path / dest)]) == USAGE
        assert message in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    assert sorted(path.name for path in folder.iterdir()) == ["train", "val"]
    (folder / "validation").mkdir()
    assert cli.main(["prepare", str(folder), str(tmp_path / "set")]) == USAGE
    assert "both val and validation" in capfd.readouterr().err
