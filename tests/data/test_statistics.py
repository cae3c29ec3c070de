"""What is measured of a set's pixels is what NumPy finds, and training takes it from the file."""

import json
from pathlib import Path

import numpy as np
import pytest

from resnet_jax import cli
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.source import ArraySource
from resnet_jax.data.statistics import (
    IMAGENET_CHANNEL_MEAN,
    IMAGENET_COLOR,
    color_components,
    image_mean,
    load_statistics,
    measure_pixels,
    save_statistics,
)
from tests.data.photographs import write_folder

DECODING = DecodeOptions("center", size=64, scales=(64, 64), areas=(1.0, 1.0), test_scale=72)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("photographs"), train=8, val=2)


def check(found: object, images: np.ndarray) -> None:
    """Compares statistics with NumPy's of the same images."""
    values = images.reshape(-1, 3) / 255
    covariance = np.cov(values, rowvar=False, bias=True)
    np.testing.assert_allclose(found.mean, images.mean(0), rtol=1e-6)
    color = found.color
    np.testing.assert_allclose(
        color.eigenvectors @ np.diag(color.eigenvalues) @ color.eigenvectors.T, covariance, atol=1e-7
    )
    np.testing.assert_allclose(color.eigenvectors.T @ color.eigenvectors, np.eye(3), atol=1e-6)
    assert (np.diff(color.eigenvalues) <= 0).all()
    assert found.examples == len(images)


def test_statistics_are_numpys() -> None:
    images = np.random.RandomState(0).randint(0, 256, (150, 5, 4, 3), dtype=np.uint8)
    check(measure_pixels(ArraySource(images, np.zeros(150, np.int32), ["one"]), workers=2), images)


def test_the_command_measures_the_center_crops_of_the_training_split(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.npz"
    assert cli.main(["statistics", str(folder), str(file), "--image-size=64", "--scale=72", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    images = open_source(str(folder), "train", decoding=DECODING).read(range(24))[0]
    check(load_statistics(str(file)), images)
    np.testing.assert_allclose(printed["mean"], images.mean((0, 1, 2)), atol=1e-3)
    assert (printed["examples"], printed["file"]) == (24, str(file))
    assert cli.main(["statistics", str(folder), str(file), "--image-size=64", "--scale=72"]) == 0
    assert f"--config.data.mean={file}" in capsys.readouterr().out


def test_training_takes_the_mean_and_the_colors_from_the_file(folder: Path, tmp_path: Path) -> None:
    source = open_source(str(folder), "train", decoding=DECODING)
    statistics, file = measure_pixels(source), str(tmp_path / "found.npz")
    save_statistics(file, statistics)
    np.testing.assert_array_equal(image_mean(source, file), statistics.mean)
    np.testing.assert_array_equal(image_mean(source, "pixel"), statistics.mean)
    np.testing.assert_array_equal(color_components(file).eigenvalues, statistics.color.eigenvalues)
    assert (image_mean(source, "imagenet") == IMAGENET_CHANNEL_MEAN).all()
    assert color_components("imagenet") is IMAGENET_COLOR
    assert not list(tmp_path.glob("*partial*"))
    other = DecodeOptions("center", size=32, scales=(64, 64), areas=(1.0, 1.0), test_scale=72)
    with pytest.raises(DataError, match=r"is of images of 64×64, and config.data has 32×32"):
        image_mean(open_source(str(folder), "train", decoding=other), file)


def test_the_published_colors_are_principal_components() -> None:
    vectors = IMAGENET_COLOR.eigenvectors.astype(np.float64)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npz"], "there is no folder ./none"),
        (["nowhere.txt"], "it must be FILE.npz"),
        (["none/nowhere.npz"], "in a folder that is there"),
        (["nowhere.npz", "--scale=100"], "--image-size is 224 and --scale 100"),
        (["nowhere.npz", "--workers=-1"], "--workers: '-1' is not a whole number of 0 or more"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["statistics", "./none", *arguments]) == 2
    assert message in capsys.readouterr().err
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(DataError, match="is not a file of statistics"):
        load_statistics("text.npz")
