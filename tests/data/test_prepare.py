"""Preparing ends with the same bytes however often it is killed, and nothing half-written is read as
whole."""

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.prepare import prepare
from resnet_jax.data.prepared import MANIFEST
from tests.data.photographs import write_folder

DECODING = DecodeOptions("scale", size=64, scales=(80, 120), areas=(0.1, 1.0), test_scale=72)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("photographs"), train=8, val=2)


def contents(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.iterdir() if path.name != ".lock")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("raw_share", [0.0, 0.5, 1.0])
def test_a_prepared_set_is_seen_as_its_folder(folder: Path, tmp_path: Path, raw_share: float) -> None:
    prepare(str(folder), str(tmp_path), raw_share=raw_share, shard_examples=7)
    ours, theirs = (open_source(str(root), "train", decoding=DECODING) for root in (tmp_path, folder))
    assert list(ours.class_names) == list(theirs.class_names)
    for one, other in zip(ours.read(range(24)), theirs.read(range(24)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_killed_and_run_again_it_ends_with_the_bytes_of_an_undisturbed_one(
    folder: Path, tmp_path: Path
) -> None:
    options = {"shrink": 100, "raw_share": 0.3, "shard_examples": 2}
    prepare(str(folder), str(tmp_path / "whole"), **options)
    killed = tmp_path / "killed"
    code = "from resnet_jax.data.prepare import prepare; "
    shown = "lambda *done: print(*done, flush=True)"
    code += f"prepare({str(folder)!r}, {str(killed)!r}, progress={shown}, **{options})"
    for kill in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert process.stdout
        shards = random.Random(kill).randint(
            2 * kill, 2 * kill + 3
        )  # Of 15, those of the kill before included.
        assert all(process.stdout.readline() for _ in range(shards))
        time.sleep(random.Random(kill).uniform(0, 0.004))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / MANIFEST).exists()
        with pytest.raises(DataError):
            open_source(str(killed), "train", decoding=DECODING)
    prepare(str(folder), str(killed), workers=2, **options)
    assert contents(killed) == contents(tmp_path / "whole")


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    prepare(str(folder), str(tmp_path / "set"), shard_examples=12)
    shard = tmp_path / "set" / "train-00000-of-00002.array_record"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"train-00000-of-00002.array_record has \d+ of its \d+ bytes"):
        open_source(str(tmp_path / "set"), "train", decoding=DECODING)
    shard.write_bytes(whole[:-50] + bytes([whole[-50] ^ 1]) + whole[-49:])
    with pytest.raises(DataError, match="is missing or damaged"):
        prepare(str(folder), str(tmp_path / "set"), shard_examples=12)
    (tmp_path / "set" / MANIFEST).unlink()
    with pytest.raises(DataError, match="is not a whole set"):
        open_source(str(tmp_path / "set"), "train", decoding=DECODING)


def test_another_preparation_is_not_mixed_in(folder: Path, tmp_path: Path) -> None:
    prepare(str(folder), str(tmp_path / "set"))
    with pytest.raises(DataError, match=r"another source.*or with other options"):
        prepare(str(folder), str(tmp_path / "set"), shrink=100)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="is not empty"):
        prepare(str(folder), str(tmp_path / "other"))


def test_a_corrupt_image_leaves_nothing_that_looks_whole(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "folder")
    (tmp_path / "folder" / "train" / "china" / "0003.jpg").write_text("text")
    with pytest.raises(DataError, match=r"china/0003.jpg \(example 3\): it is not an image"):
        prepare(str(tmp_path / "folder"), str(tmp_path / "set"))
    assert not list((tmp_path / "set").glob("*partial*")) + list((tmp_path / "set").glob(MANIFEST))
