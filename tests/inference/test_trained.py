"""A trained network answers alike about a picture in any form, and as evaluation does, wherever its run is
moved."""

import dataclasses
import shutil
from pathlib import Path

import cv2
import jax
import numpy as np
import PIL.Image
import pytest

from resnet_jax import create_model
from resnet_jax.evaluation.evaluate import predictions
from resnet_jax.inference import InferenceError, Trained, load_trained
from resnet_jax.models import ModelError, features
from resnet_jax.training.checkpoints import read_checkpoint
from tests.data.photographs import CLASSES, photograph, write_folder
from tests.interop import workdirs
from tests.training.runs import train

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoint_v1"
SIDE = 24
MODEL = {"name": "cifar_resnet8", "num_classes": 3, "input_scale": [0.02, 0.025, 0.015]}
SIZES = {"resize_shorter_side": 32, "center_crop": SIDE, "interpolation": "antialias"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    mean = workdirs.pixel_mean(SIDE)
    workdirs.write(workdir, MODEL, side=SIDE, mean=mean, class_names=CLASSES, preprocessing=SIZES)
    return load_trained(workdir)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Of several sizes, RGB."""
    return [photograph(label, number) for label, number in ((0, 0), (1, 1), (2, 2))]


def write_png(path: Path, pixels: np.ndarray) -> str:
    assert cv2.imwrite(str(path), pixels[..., ::-1])
    return str(path)


def test_paths_pil_images_and_arrays_are_answered_alike(
    trained: Trained, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    expected = trained.logits(pictures)
    assert expected.shape == (3, 3)
    paths = [write_png(tmp_path / f"{number}.png", pixels) for number, pixels in enumerate(pictures)]
    images = [PIL.Image.open(path) for path in paths]
    for same in (paths, tuple(map(Path, paths)), images, [paths[0], images[1], pictures[2]]):
        np.testing.assert_array_equal(trained.logits(same), expected)
    for one in (paths[0], images[0], pictures[0], pictures[0][None], jax.numpy.asarray(pictures[0])):
        np.testing.assert_allclose(trained.logits(one), expected[:1], rtol=1e-5, atol=1e-5)


def test_gray_pixels_are_three_equal_channels(trained: Trained, tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (2, 40, 50), np.uint8)
    expected = trained.logits(np.stack([gray] * 3, axis=-1))
    np.testing.assert_array_equal(trained.logits(gray), expected)
    np.testing.assert_array_equal(trained.logits([PIL.Image.fromarray(one) for one in gray]), expected)
    assert cv2.imwrite(str(tmp_path / "gray.png"), gray[1])
    np.testing.assert_allclose(trained.logits(tmp_path / "gray.png"), expected[1:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trained.logits(gray[0]), expected[:1], rtol=1e-5, atol=1e-5)


def test_preprocessed_images_are_what_the_model_takes(trained: Trained, pictures: list[np.ndarray]) -> None:
    images = trained.preprocess(pictures)
    assert (images.shape, images.dtype) == ((3, SIDE, SIDE, 3), np.float32)
    expected = jax.jit(trained.model.apply)(trained.variables, images)
    np.testing.assert_allclose(trained.logits(pictures), expected, rtol=1e-4, atol=1e-5)
    found = trained.features(pictures)
    for name, array in features(trained.model, trained.variables, images).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)


def test_more_pictures_than_a_batch_are_answered_by_one_program(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced, forward = [], Trained.forward
    monkeypatch.setattr(Trained, "forward", lambda *arguments: traced.append(1) or forward(*arguments))
    trained = dataclasses.replace(trained)  # With nothing compiled yet.
    many = np.random.default_rng(1).integers(0, 256, (70, 32, 32, 3), np.uint8)
    found = trained.logits(many)
    assert len(traced) == 1
    np.testing.assert_allclose(found[60:], trained.logits(many[60:]), rtol=1e-4, atol=1e-5)
    assert trained.logits(many[:0]).shape == (0, 3)


def test_predictions_are_the_likeliest_classes(trained: Trained, pictures: list[np.ndarray]) -> None:
    found = trained.predict(pictures, top=2)
    for guesses, row in zip(found, trained.logits(pictures), strict=True):
        shares = np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum()
        order = np.argsort(-row)[:2]
        assert [guess.label for guess in guesses] == order.tolist()
        assert [guess.name for guess in guesses] == [CLASSES[label] for label in order]
        np.testing.assert_allclose([guess.probability for guess in guesses], shares[order], rtol=1e-5)
    assert len(trained.predict(pictures[0])[0]) == 3


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 24, 24, 3), np.float32),
        np.zeros((24, 24, 3)),
        [np.zeros((24, 24, 3), np.float16)],
        jax.numpy.zeros((1, 24, 24, 3)),
        np.zeros((24, 24, 3), np.int32),
        0.5,
    ],
)
def test_other_numbers_than_bytes_are_refused(trained: Trained, images: object) -> None:
    for ask in (trained.logits, trained.predict, trained.features, trained.preprocess):
        with pytest.raises(InferenceError, match=r"model\.apply\(variables, trained\.preprocess\(x\)\)"):
            ask(images)  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(5,), (0, 4, 3), (2, 4, 4, 1), (1, 2, 4, 4, 3), (4, 0)])
def test_other_shapes_than_those_of_images_are_refused(trained: Trained, shape: tuple[int, ...]) -> None:
    with pytest.raises(InferenceError, match=r"has the shape \[H, W, 3\] or \[N, H, W, 3\]"):
        trained.logits(np.zeros(shape, np.uint8))


def test_a_network_without_features_says_so() -> None:
    arguments = {"name": "vgg8", "stage_depths": (1,) * 5, "width": 2, "hidden": 4, "num_classes": 3}
    with pytest.raises(ModelError, match="features are those of a residual or plain net"):
        features(create_model(**arguments), {}, np.zeros((1, 32, 32, 3)))


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], np.ndarray]:
    """Returns a run on photographs that was moved, whose data is deleted, with pictures and their
    log-probabilities of before."""
    folder = tmp_path_factory.mktemp("moved")
    root = write_folder(folder / "photographs", train=4, val=2)
    fields = {
        "data.source": root,
        "data.test_split": "val",
        "data.image_size": 24,
        "data.test_scale": 28,
        "data.scales": "(28,32)",
        "model.name": "cifar_resnet8",
        "model.group_size": 8,
        "batch_size": 8,
        "optimizer.boundaries": "()",
        "run.steps": 2,
        "run.tensorboard": False,
    }
    arguments = [f"--config.{name}={value}" for name, value in fields.items()]
    arguments += ["--config=digits_resnet20", f"--workdir={folder / 'run'}"]
    assert train(arguments) == 0
    found = predictions(str(folder / "run"))
    files = sorted((root / "val").rglob("*.jpg"))
    files = [str(shutil.copy(file, folder / f"{number}.jpg")) for number, file in enumerate(files)]
    shutil.rmtree(root)
    (folder / "run").rename(folder / "elsewhere")
    return folder / "elsewhere", files, found.log_probabilities[np.argsort(found.numbers)]


def test_a_moved_run_without_its_data_predicts_with_names_and_as_evaluation(moved) -> None:
    workdir, files, log_probabilities = moved
    trained = load_trained(workdir)
    assert (trained.class_names, trained.notes) == (CLASSES, ())
    assert (trained.preprocessing.resize, trained.preprocessing.crop) == (28, 24)
    np.testing.assert_allclose(
        jax.nn.log_softmax(trained.logits(files)), log_probabilities, rtol=1e-4, atol=1e-4
    )
    assert {guess.name for guess in trained.predict(files)[0]} == set(CLASSES)


def test_a_checkpoint_of_format_1_predicts() -> None:
    trained = load_trained(GOLDEN)
    assert read_checkpoint(GOLDEN).preprocessing is None
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = trained.model.apply(trained.variables, trained.preprocess(images))
    np.testing.assert_allclose(trained.logits(images), expected, rtol=1e-4, atol=1e-4)
    assert len(trained.predict(images)[0]) == 5
