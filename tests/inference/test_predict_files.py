"""`resnet-jax predict` says of files what the net says of their pixels, and goes on where a file is bad."""

import csv
import io
import json
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from resnet_jax import load_checkpoint
from resnet_jax.cli import main
from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.tfds_sets import load_digits
from resnet_jax.inference import Trained, load_trained
from resnet_jax.inference import predict_files as module
from resnet_jax.inference.predict_files import Prediction, Unreadable, predict_files
from resnet_jax.training.checkpoints import read_checkpoint
from tests.data.photographs import CLASSES as FOLDERS
from tests.data.photographs import write_folder
from tests.interop import nets, workdirs

SIDE, CLASSES = 8, 6
SCALE = {"input_scale": [0.02, 0.025, 0.015]}
"""Keeps the logits small, so that several classes have a probability."""
MODEL = {"name": "cifar_resnet8", "num_classes": CLASSES, **SCALE}
NAMES = tuple("abcdef")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    mean = workdirs.pixel_mean(SIDE)
    return workdirs.write(
        folder / "run", MODEL, side=SIDE, mean=mean, steps=(4, 9), inference__class_names=NAMES
    )


def write_png(path: Path, pixels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return [
        write_png(tmp_path / "pictures" / f"{i}.png", pixels) for i, pixels in enumerate(nets.pixels(SIDE, 7))
    ]


def probabilities(workdir: Path, pixels: np.ndarray, step: int | None = None) -> np.ndarray:
    """Returns the softmax of the checkpoint's logits for pixels of the net's size."""
    model, variables = load_checkpoint(str(workdir), step)
    mean = read_checkpoint(workdir, step).arrays["image_mean"]
    logits = np.asarray(jax.jit(model.apply)(variables, pixels.astype(np.float32) - mean), np.float64)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def assert_are(found: list[Prediction], expected: np.ndarray, *, top: int) -> None:
    assert len(found) == len(expected)
    for prediction, row in zip(found, expected, strict=True):
        assert [guess.label for guess in prediction.top] == np.argsort(-row)[:top].tolist()
        np.testing.assert_allclose(
            [guess.probability for guess in prediction.top], np.sort(row)[::-1][:top], atol=1e-5
        )


def predicted(trained: Trained, files: list[str], **options: int) -> list[Prediction]:
    found = list(predict_files(trained, files, **options))
    assert [prediction.file for prediction in found] == files
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
def test_files_are_predicted_as_their_pixels_with_one_program(batch_size, run, files, monkeypatch) -> None:
    traced = []
    forward = Trained.forward
    monkeypatch.setattr(Trained, "forward", lambda *arguments: traced.append(1) or forward(*arguments))
    found = predicted(load_trained(run), files, batch_size=batch_size, top=3, threads=4)
    assert_are(found, probabilities(run, nets.pixels(SIDE, 7)), top=3)
    assert len({prediction.top[0].label for prediction in found}) > 1
    assert [guess.name for guess in found[0].top] == [NAMES[guess.label] for guess in found[0].top]
    assert len(traced) == 1


def test_at_most_two_batches_are_held(run: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    read = module._read
    monkeypatch.setattr(module, "_read", lambda *arguments: seen.append(1) or read(*arguments))
    results = predict_files(load_trained(run), files * 20, batch_size=5, threads=3)
    next(results)
    assert 5 <= len(seen) <= 15
    assert len(list(results)) == 139


def test_bad_files_are_reported_and_the_rest_go_on(run: Path, files: list[str], tmp_path: Path) -> None:
    bad = {"text.png": b"not a picture", "empty.jpg": b"", "cut.png": Path(files[0]).read_bytes()[:60]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    wrong = [str(tmp_path / name) for name in (*bad, "missing.png")]
    named = [wrong[0], files[0], wrong[1], wrong[2], *files[1:4], wrong[3]]
    found = list(predict_files(load_trained(run), named, batch_size=3))
    assert {one.file: one.reason for one in found if isinstance(one, Unreadable)}.keys() == set(wrong)
    reasons = " ".join(one.reason for one in found if isinstance(one, Unreadable))
    for reason in ("it is not an image", "the file is empty", "cut short", "No such file"):
        assert reason in reasons
    assert_are(
        [one for one in found if isinstance(one, Prediction)],
        probabilities(run, nets.pixels(SIDE, 7)[:4]),
        top=5,
    )


def test_pictures_of_any_size_are_seen_as_evaluation_sees_them(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photographs", train=1, val=2)
    fields = {
        "data__source": str(root),
        "data__test_split": "val",
        "data__image_size": 48,
        "data__test_scale": 56,
    }
    workdir = workdirs.write(tmp_path / "run", MODEL | {"num_classes": 3}, side=48, **fields)
    source = open_source(
        str(root),
        "val",
        decoding=DecodeOptions("center", size=48, scales=(56, 56), areas=(1, 1), test_scale=56),
    )
    pixels, labels, _ = source.read(range(len(source)))
    named = [str(root / "val" / FOLDERS[label] / f"{1 + i % 2:04d}.jpg") for i, label in enumerate(labels)]
    found = predicted(load_trained(workdir), named, top=3)
    assert_are(found, probabilities(workdir, pixels), top=3)
    assert {guess.name for guess in found[0].top} == set(FOLDERS)


def test_digits_of_8_pixels_are_enlarged_as_the_run_did(tmp_path: Path) -> None:
    model = MODEL | {"num_classes": 10}
    mean = workdirs.pixel_mean(16)
    workdir = workdirs.write(tmp_path / "run", model, side=16, mean=mean, data__source="digits")
    pixels = load_digits()[0][:6]
    small = [write_png(tmp_path / f"{i}.png", image[::2, ::2]) for i, image in enumerate(pixels)]
    large = [write_png(tmp_path / f"{i}_large.png", image) for i, image in enumerate(pixels)]
    trained = load_trained(workdir)
    assert trained.class_names == tuple("0123456789")
    for files in (small, large):
        assert_are(predicted(trained, files), probabilities(workdir, pixels), top=5)


def test_text_has_a_line_for_each_file(
    run: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--workdir", str(run), "--top", "2", *files[:3]]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = probabilities(run, nets.pixels(SIDE, 3))
    for line, file, row in zip(lines, files[:3], expected, strict=True):
        first, second = np.argsort(-row)[:2]
        assert line == f"{file}: {NAMES[first]} {row[first]:.1%}, {NAMES[second]} {row[second]:.1%}"


def test_json_is_one_object_of_the_step_asked_for(
    run: Path, files: list[str], tmp_path: Path, capsys
) -> None:  # type: ignore[no-untyped-def]
    missing = str(tmp_path / "missing.png")
    assert main(["predict", "--workdir", str(run), "--step", "4", "--json", files[0], missing]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["model"], found["step"]) == ("cifar_resnet8", 4)
    top = found["predictions"][0]["top"]
    row = probabilities(run, nets.pixels(SIDE, 1), 4)[0]
    assert [guess["label"] for guess in top] == np.argsort(-row)[:5].tolist()
    assert found["unreadable"] == [{"file": missing, "reason": "No such file or directory"}]
    assert captured.err.splitlines()[0] == f"resnet-jax: left out {missing}: No such file or directory"
    assert captured.err.splitlines()[1].startswith("resnet-jax: 1 of 2 pictures could not be read")


def test_csv_of_a_folder_and_what_is_below_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = nets.pixels(SIDE, 3)
    names = ["b, with a comma.png", "deeper/a.PNG", "a.png"]
    for name, image in zip(names, pixels, strict=True):
        write_png(tmp_path / "folder" / name, image)
    (tmp_path / "folder" / "notes.txt").write_text("no picture")
    assert main(["predict", "--workdir", str(run), "--csv", "--top", "1", str(tmp_path / "folder")]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    order = [2, 0, 1]
    assert [row["file"] for row in rows] == [str(tmp_path / "folder" / names[i]) for i in order]
    expected = probabilities(run, pixels[order])
    assert [int(row["label"]) for row in rows] == expected.argmax(1).tolist()
    assert [row["name"] for row in rows] == [NAMES[label] for label in expected.argmax(1)]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected.max(1), atol=1e-5)


def test_paths_come_from_stdin(run: Path, files: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([files[1], "", files[0]]) + "\n"))
    assert main(["predict", "--workdir", str(run), "-", "--csv", "--top", "1"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == [files[1], files[0]]


def test_more_classes_than_there_are_is_all_of_them(run: Path, files: list[str]) -> None:
    assert len(predicted(load_trained(run), files[:1], top=100)[0].top) == CLASSES


def test_names_that_are_not_known_are_numbers_and_that_is_said(
    tmp_path: Path, files: list[str], capsys
) -> None:  # type: ignore[no-untyped-def]
    workdir = workdirs.write(tmp_path / "run", MODEL, side=SIDE, data__source=str(tmp_path / "gone"))
    assert main(["predict", "--workdir", str(workdir), files[0], "--csv"]) == 0
    captured = capsys.readouterr()
    assert all(row["label"] == row["name"] for row in csv.DictReader(io.StringIO(captured.out)))
    assert "the names of the classes are not known" in captured.err


MISTAKES = [
    (["--top", "0"], "argument --top: '0' is not a whole number of 1 or more"),
    (["--json", "--csv"], "choose one of them"),
    (["--workdir", "nowhere"], "nowhere holds no checkpoint"),
    (["--step", "5"], "has no checkpoint of step 5; it has 4, 9"),
    (["empty"], "folder empty has no images"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_ends_in_one_line(arguments, message, run, files, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["predict", "--workdir", str(run), files[0], *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_nothing_on_stdin_is_a_mistake(run: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["predict", "--workdir", str(run), "-"]) == 2
    assert "no picture is named on stdin" in capsys.readouterr().err
