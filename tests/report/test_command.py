import errno
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from resnet_jax import load_checkpoint
from resnet_jax.cli import main
from resnet_jax.data.source import SyntheticSource
from resnet_jax.training.checkpoint_writer import CheckpointWriter
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.config import to_json
from resnet_jax.training.stopwatch import PARTS
from resnet_jax.training.task import Experiment, build_experiment
from tests.report import workdirs
from tests.report.reading import Node, read
from tests.training import tiny


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return build_experiment(tiny.get_config(**{"run.devices": 1}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, experiment: Experiment) -> Path:
    workdir = write_run(tmp_path_factory.mktemp("finished") / "run", experiment)
    accuracy = float((predicted(workdir) == np.arange(25) % 7).mean())
    (workdir / "metrics.jsonl").write_text(json.dumps(workdirs.record(7, test_top1=accuracy)) + "\n")
    return workdir


def write_run(workdir: Path, experiment: Experiment, **changes: Any) -> Path:
    """Writes a workdir as of a run that has ended: random weights do, and need not be trained."""
    changes = {"run.steps": 7, **changes}
    workdirs.write(workdir, [], **changes)
    config = to_json(tiny.get_config(**changes))
    writer = CheckpointWriter(workdir, keep=1, config=config, model=experiment.model_arguments)
    writer.save(7, experiment.initial_state())
    writer.close()
    return workdir


def predicted(workdir: Path) -> np.ndarray:
    """Returns what the net takes the images of the test split for."""
    model, variables = load_checkpoint(workdir)
    images, _, _ = SyntheticSource(examples=25, image_size=8, classes=7, seed=1).read(range(25))
    mean = read_checkpoint(workdir).arrays["image_mean"]
    return np.asarray(jax.jit(model.apply)(variables, images - mean)).argmax(1)


def report(*arguments: object) -> int:
    return main(["report", *map(str, arguments)])


def page_at(path: Path) -> Node:
    return read(path.read_text())


def test_a_run_is_reported_on(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("**/*")}
    assert report(finished, "--to", tmp_path / "page.html", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    page = page_at(tmp_path / "page.html")
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert said["runs"][0]["test_error"] == pytest.approx(1 - last["test_top1"])
    assert said["runs"][0]["status"] == "complete"
    assert said["bytes"] == (tmp_path / "page.html").stat().st_size
    assert said["left_out"] == []
    assert said["runs"][0]["wall_time"] is None
    taken, mistakes = predicted(finished), page.one("section", id="mistakes")
    mistaken = int((taken != np.arange(25) % 7).sum())
    assert f"{mistaken} of 25 images of the split test are mistaken" in mistakes.text
    assert len(mistakes.all("img")) == min(12, mistaken)
    matrix = mistakes.one("table", class_="matrix").rows()
    assert matrix[0][1:] == [f"class {label}" for label in range(7)]
    counts = [[int(cell or 0) for cell in row[1:]] for row in matrix[1:]]
    assert counts == [[int((taken[true::7] == label).sum()) for label in range(7)] for true in range(7)]
    assert {path: path.stat().st_mtime_ns for path in finished.glob("**/*")} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]


def test_what_is_missing_is_said_and_the_rest_is_there(
    finished: Path,
    experiment: Experiment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run whose data is gone, one of a set that would have to be downloaded, an import, a damaged
    checkpoint, and none yet."""
    monkeypatch.setattr(
        "tensorflow_datasets.core.DatasetBuilder.download_and_prepare",
        lambda *_, **__: pytest.fail("a download"),
    )
    remote = write_run(
        tmp_path / "remote", experiment, **{"data.source": "cifar10", "run.data_dir": str(tmp_path / "sets")}
    )
    imported = write_run(tmp_path / "imported", experiment, **{"data.source": ""})
    gone = write_run(tmp_path / "gone", experiment, **{"data.source": "/nowhere", "data.image_size": 8})
    damaged = shutil.copytree(finished, tmp_path / "damaged")
    largest = max(
        (damaged / "checkpoints").glob("**/*"), key=lambda path: path.stat().st_size * path.is_file()
    )
    largest.write_bytes(largest.read_bytes()[:-9])
    young = workdirs.write(tmp_path / "young", [workdirs.record(1)])
    assert report(gone, remote, imported, damaged, young, "--to", tmp_path / "page.html") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{tmp_path / 'page.html'}: 5 runs, ")
    section = page_at(tmp_path / "page.html").one("section", id="mistakes").text
    for text in (
        "gone is left out: there is no folder /nowhere",
        f"remote is left out: cifar10 is not prepared in {tmp_path / 'sets'}; --data-dir says where it is",
        "imported is left out: the data of this net is not known",
        "is damaged",
        "young is left out: there is no checkpoint",
    ):
        assert text in section


def test_only_records_are_read_where_that_is_asked_for(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert report(finished, "--records-only") == 0
    page = page_at(tmp_path / "report.html")
    assert "run is left out: --records-only was asked for." in page.one("section", id="mistakes").text
    convolutions, norms, head = 432 + 4608 + 13824 + 55296, 96 + 128 + 256, 64 * 7 + 7
    assert ["Parameters", f"{convolutions + norms + head:,}"] in page.one("section", id="results").one(
        "table"
    ).rows()


def test_the_wall_time_is_in_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = dict.fromkeys(PARTS, 0.0) | {"computing": 30.0, "starting": 10.0, "down": 5.0}
    fields = {f"seconds_{part}": seconds for part, seconds in parts.items()}
    run = workdirs.write(tmp_path / "run", [workdirs.record(1, starts=2, **fields)])
    assert report(run, "--records-only", "--to", tmp_path / "page.html", "--json") == 0
    found = json.loads(capsys.readouterr().out)["runs"][0]["wall_time"]
    assert found == {"starts": 2, "goodput": 0.75, "seconds": parts}


def test_part_of_the_split_is_said_to_be_so(finished: Path, tmp_path: Path) -> None:
    assert report(finished, "--to", tmp_path / "page.html", "--examples", 10) == 0
    assert "of 10 of the 25 images, spread evenly, of the split test" in page_at(tmp_path / "page.html").text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not the workdir of a run"),
        (["{run}", "--to", "{folder}"], "--to is the folder"),
        (["{run}", "--to", "{folder}/no/where.html"], "which is no folder; make it"),
        (["{run}", "--examples", "-1"], "argument --examples: '-1' is not a whole number of 0 or more"),
    ],
)
def test_a_mistake_ends_in_one_line(arguments, message, finished: Path, tmp_path: Path, capsys) -> None:
    assert report(*(argument.format(run=finished, folder=tmp_path) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("resnet_jax.files.os.fsync", fail)
    assert main(["report", str(finished), "--to", str(target), "--records-only"]) == 1
    assert target.read_text() == "old"
