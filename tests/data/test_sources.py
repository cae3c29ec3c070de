"""Sources give the same examples for the same numbers, and say what is wrong when they cannot."""

import hashlib
import importlib.util
import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_source
from resnet_jax.data.source import ArraySource, SyntheticSource
from resnet_jax.data.statistics import image_mean
from resnet_jax.data.tfds_sets import load_digits


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("tfds"))


def test_the_digits_are_split_once_and_for_all(data_dir: str) -> None:
    train, test = (
        open_source("digits", "train", data_dir=data_dir),
        open_source("digits", "test", data_dir=data_dir),
    )
    assert (len(train), len(test), train.image_shape, list(train.class_names)) == (
        1437,
        360,
        (16, 16, 3),
        list("0123456789"),
    )
    images = np.concatenate([train.read(range(1437))[0], test.read(range(360))[0]])
    originals, labels = load_digits()
    order = np.lexsort(originals.reshape(1797, -1).T)
    np.testing.assert_array_equal(images[np.lexsort(images.reshape(1797, -1).T)], originals[order])
    assert hashlib.sha256(originals.tobytes() + labels.astype(np.int8).tobytes()).hexdigest()[:16] == DIGEST


DIGEST = "51ee092bcc325bd0"


def test_the_digits_are_scikit_learns_with_every_pixel_doubled() -> None:
    import sklearn.datasets

    images, labels = load_digits()
    bunch = sklearn.datasets.load_digits()
    small = images[:, ::2, ::2, 0].astype(np.float64)
    np.testing.assert_array_equal(images, small.repeat(2, 1).repeat(2, 2)[..., None].repeat(3, -1))
    np.testing.assert_array_equal(
        sorted(map(tuple, np.rint(small * 16 / 255).reshape(1797, -1))), sorted(map(tuple, bunch.data))
    )
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(bunch.target))


def test_the_digits_need_no_tensorflow() -> None:
    code = "import sys; from resnet_jax.data import tfds_sets; assert 'tensorflow' not in sys.modules"
    import subprocess

    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode
        == 0
    )


def test_a_part_of_a_split_is_taken_in_tfds_notation(data_dir: str) -> None:
    first, rest = (
        open_source("digits", split, data_dir=data_dir) for split in ("train[:1000]", "train[1000:]")
    )
    assert (len(first), len(rest)) == (1000, 437)


def _open(data_dir: str) -> int:
    return len(open_source("digits", "test", data_dir=data_dir))


@pytest.mark.slow
def test_of_several_processes_one_prepares_and_the_others_wait(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_open, [str(tmp_path / "new")] * 3) == [360] * 3


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        (
            "digit",
            "train",
            "unknown data set 'digit'; allowed are digits, synthetic, a folder, and the names of TFDS",
        ),
        (
            "digits",
            "validation",
            "sklearn_digits has no split 'validation'.*its splits are test, train|train, test",
        ),
        ("digits", "train[:0]", "sklearn_digits has no split 'train"),
        ("digits", "train[", "sklearn_digits has no split 'train"),
    ],
)
def test_what_does_not_exist_is_named(data_dir: str, name: str, split: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(name, split, data_dir=data_dir)


def test_a_set_that_needs_tensorflow_says_which_command_mends_it(
    data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name)
    )
    with pytest.raises(DataError, match=r"cifar10 is not prepared.*pip install 'resnet-jax\[tfds-prepare\]'"):
        open_source("cifar10", "train", data_dir=data_dir)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"digits could not be prepared in .*file.*config.run.data_dir"):
        open_source("digits", "train", data_dir=str(tmp_path / "file"))


def test_synthetic_examples_depend_on_their_number_alone() -> None:
    source = SyntheticSource(examples=50, image_size=6, classes=4, seed=0)
    images, labels, _ = source.read([7, 3, 7])
    np.testing.assert_array_equal(images[0], images[2])
    np.testing.assert_array_equal(images[1], source.read([3])[0][0])
    assert labels.tolist() == [3, 3, 3]
    assert not np.array_equal(images, SyntheticSource(50, 6, 4, seed=1).read([7, 3, 7])[0])


@pytest.mark.parametrize("kind", ["pixel", "channel"])
def test_the_mean_is_that_of_all_images(kind: str) -> None:
    images = np.random.RandomState(0).randint(0, 256, (2500, 4, 4, 3), dtype=np.uint8)
    mean = image_mean(ArraySource(images, np.zeros(2500, np.int32), ["one"]), kind)
    expected = images.astype(np.float64).mean(0 if kind == "pixel" else (0, 1, 2))
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
