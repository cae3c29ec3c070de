"""A detector's run as a user makes it: two phases, kills in both, evaluation, use, the alternation."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import PIL.Image
import pytest

import resnet_jax as rj
from resnet_jax.cli import main
from resnet_jax.data.scenes import scene
from resnet_jax.inference.preprocessing import InferenceError
from resnet_jax.training.checkpoints import read_checkpoint, steps_in
from resnet_jax.training.logging import read_metrics
from tests.training import processes, runs

pytestmark = pytest.mark.slow
RECIPE = str(Path(__file__).with_name("tiny_detector.py"))


def start(workdir: Path, *more: str) -> subprocess.Popen[str]:
    """Starts a run in a process of its own, on one device."""
    return subprocess.Popen(
        [sys.executable, "-m", "resnet_jax", "train", f"--config={RECIPE}", f"--workdir={workdir}", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("detector") / "undisturbed"
    out, error = (process := start(workdir)).communicate()
    assert process.returncode == 0, error
    assert "first " in out
    assert "recomputing its statistics of batch normalization from all training images" in out
    assert "done: mAP@.5" in out
    return workdir


def test_killed_in_both_phases_it_ends_bit_for_bit_as_the_undisturbed_run(
    undisturbed: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "killed"
    for folder, step in ((workdir / "initial", 4), (workdir, 4), (workdir, 8)):
        process = start(workdir)
        runs.wait_until(lambda: step in steps_in(folder), process)  # noqa: B023 (it is called before the next)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    out, error = (process := start(workdir)).communicate()
    assert process.returncode == 0, error
    assert "first " not in out
    runs.assert_same_outcome(workdir, undisturbed)


def test_the_trunk_begins_as_the_classifier_ended(undisturbed: Path) -> None:
    begun, ended = read_checkpoint(undisturbed, 4), read_checkpoint(undisturbed / "initial")
    same = [
        name
        for name in ended.arrays
        if name.startswith("batch_stats/") and not np.array_equal(begun.arrays[name], ended.arrays[name])
    ]
    assert same  # The statistics are the precise ones, and
    for name in begun.arrays:
        if name.startswith("batch_stats/"):  # they stay as they are.
            np.testing.assert_array_equal(begun.arrays[name], read_checkpoint(undisturbed, 12).arrays[name])


def test_it_is_evaluated_and_used(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(undisturbed), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert {"mAP50", "mAP", "images"} <= metrics.keys()
    assert metrics["images"] == 300
    assert main(["evaluate", str(undisturbed), "--protocol", "refine"]) == 0
    assert main(["evaluate", str(undisturbed), "--protocol", "refine+multi-scale"]) == 0
    assert main(["evaluate", str(undisturbed), "--per-class"]) == 2
    assert main(["report", str(undisturbed), "--examples", "20", "--to", str(tmp_path / "page.html")]) == 0
    assert "in 20 of 300 images of the split test are missed" in (tmp_path / "page.html").read_text()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    PIL.Image.fromarray(scene("test", 0).image).save(pictures / "a.png")
    PIL.Image.fromarray(scene("test", 3).image[:, :60]).convert("L").save(pictures / "tall.jpg")
    PIL.Image.fromarray(scene("test", 3).image[:3]).save(pictures / "thin.png")
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    capsys.readouterr()
    options = ["--workdir", str(undisturbed), "--threshold", "0.001"]
    assert main(["detect", str(pictures), *options, "--to", str(tmp_path / "found"), "--json"]) == 1
    out, error = capsys.readouterr()
    found = json.loads(out)
    assert [Path(one["file"]).name for one in found["images"]] == ["a.png", "tall.jpg"]
    assert [Path(one["file"]).name for one in found["unreadable"]] == ["broken.jpg", "thin.png"]
    assert "2 of 4 pictures could not be read" in error
    assert found["detections"] == json.loads((tmp_path / "found" / "detections.json").read_text())
    assert len(list((tmp_path / "found").glob("*.png"))) == 2
    box = found["detections"][0]["bbox"]
    assert 0 <= box[0] <= box[0] + box[2] <= 128
    assert main(["predict", str(pictures / "a.png"), "--workdir", str(undisturbed)]) == 2
    assert "this is a detector" in capsys.readouterr().err

    detector = rj.load(undisturbed)
    pixels = scene("test", 0).image
    one, same = detector.detect([pixels, PIL.Image.fromarray(pixels)], threshold=0.001)
    np.testing.assert_array_equal(one.boxes, same.boxes)
    assert len(one) == sum(record["image_id"] == 0 for record in found["detections"])
    with pytest.raises(InferenceError, match="use predict"):
        rj.load(undisturbed / "initial").detect(pixels)
    model, variables = rj.load_checkpoint(undisturbed)
    assert model.apply(variables, np.zeros((1, 128, 128, 3), np.float32))[0].shape == (1, 16 * 16 * 9)


def test_the_exported_program_finds_the_same(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "detector.stablehlo"
    assert main(["export", "--workdir", str(undisturbed), "--to", str(file)]) == 0
    record = json.loads(Path(f"{file}.json").read_text())
    assert record["program"]["input"]["image"] == "uint8[1, 128, 128, 3]"
    program = jax.export.deserialize(bytearray(file.read_bytes()))
    pixels = scene("test", 0).image
    batch = {
        "image": pixels[None],
        "size": np.full((1, 2), 128, np.int32),
        "scale": np.ones((1, 2), np.float32),
    }
    found = program.call(batch)
    (wanted,) = rj.load(undisturbed).detect(pixels, threshold=0)
    assert int(found["valid"].sum()) == len(wanted)
    np.testing.assert_allclose(found["box"][0][: len(wanted)], wanted.boxes, atol=1e-3)
    assert main(["export", "--workdir", str(undisturbed), "--to", str(tmp_path / "d.onnx")]) != 0
    assert "a detector is exported as .stablehlo" in capsys.readouterr().err


def test_the_alternation_hands_over_proposals(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, source = tmp_path / "p.npz", f"--config.initial.source={undisturbed / 'initial'}"
    half = ["--config.initial.from_recipe=None", source, "--config.run.steps=4"]
    first = start(tmp_path / "rpn", *half, "--config.detection.part=rpn")
    assert first.wait() == 0
    assert (
        main(["proposals", "--workdir", str(tmp_path / "rpn"), "--to", str(file), "--count", "64", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["images"] == 3000
    second = start(
        tmp_path / "fast", *half, "--config.detection.part=fast_rcnn", f"--config.detection.proposals={file}"
    )
    assert second.wait() == 0
    before, after = read_checkpoint(undisturbed, 4).arrays, read_checkpoint(tmp_path / "fast").arrays
    assert not np.array_equal(before["params/score/kernel"], after["params/score/kernel"])
    shutil.rmtree(tmp_path / "fast")
    file.unlink()
    third = start(
        tmp_path / "fast", *half, "--config.detection.part=fast_rcnn", f"--config.detection.proposals={file}"
    )
    _, error = third.communicate()
    assert third.returncode == 2
    assert "there is no file of proposals" in error


def test_two_processes_train_as_one(undisturbed: Path, tmp_path: Path) -> None:
    options = (
        "--config.initial.from_recipe=None",
        f"--config.initial.source={undisturbed / 'initial'}",
        "--config.run.steps=4",
    )
    for count, devices in ((1, 2), (2, 2)):
        workdir = tmp_path / str(count)
        with processes.started(
            workdir, count, *options, f"--config.run.devices={devices}", config=RECIPE
        ) as running:
            for code, _, error in processes.finish(running):
                assert code == 0, error
    one, two = (read_metrics(tmp_path / name) for name in ("1", "2"))
    assert [record["step"] for record in two] == [1, 2, 3, 4]
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(
            [record[name] for record in two], [record[name] for record in one], rtol=1e-5
        )
    assert two[-1]["test_images"] == 300
    assert two[-1]["test_mAP50"] == pytest.approx(one[-1]["test_mAP50"], abs=1e-6)
