"""Bad input ends in one clear line and a non-zero exit; nothing is lost."""

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.cli import guard, main
from resnet_jax.training.checkpoints import read_checkpoint, steps_in
from resnet_jax.training.recipes import load_recipe, recipes
from resnet_jax.training.run import run
from tests.training import runs, tiny
from tests.training.runs import train

TINY = f"--config={runs.TINY}"


def foreign(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")


def not_ours(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text('{"some": "other tool"}')


def plain_file(path: Path) -> None:
    path.write_text("")


def nothing(path: Path) -> None: ...


BAD = [
    (
        ["--config.model.name=resnet51"],
        nothing,
        "unknown model 'resnet51'; did you mean resnet50? depths of this family are 18, 34, 50, 101, 152",
    ),
    (
        ["--config.model.name=resnext50"],
        nothing,
        "unknown model 'resnext50'; did you mean resnet50?",
    ),
    (["--config.model.name=cifar_resnet21"], nothing, "depths of this family are 6n + 2"),
    (["--config.model.shortcut=D"], nothing, "unknown shortcut 'D'; options are A, A_centered, B, C"),
    (["--config.model.stride_on=3x3"], nothing, "stride_on is an option of bottleneck blocks"),
    (["--config.batchsize=16"], nothing, "config.batchsize does not exist; did you mean config.batch_size?"),
    (["--config.run.nope.x=16"], nothing, "config.run.nope.x does not exist; allowed are"),
    (["--config.optimizer.momentum.x=16"], nothing, "config.optimizer.momentum.x does not exist"),
    (["--config.optimizer=16"], nothing, "config.optimizer is a section; set one of its fields"),
    (["--config.batch_size=many"], nothing, "config.batch_size is 'many'; it must be a whole number"),
    (["--config.run.tensorboard=3"], nothing, "config.run.tensorboard is '3'; it must be true or false"),
    (["--config.seed=true"], nothing, "config.seed is 'true'; it must be a whole number"),
    (["--config.run.steps=0"], nothing, "config.run.steps is 0; it must be a number above 0"),
    (["--config.batch_size=18"], nothing, "batch_size 18 is not divisible by model.group_size 4"),
    (["--config.run.devices=99"], nothing, "run.devices is 99, and this machine has"),
    (["--config.data.source=imagenot"], nothing, "unknown data set 'imagenot'"),
    (["--config=nowhere.py"], nothing, "there is no config 'nowhere.py'"),
    (["--config=digits_resnet2"], nothing, "did you mean digits_resnet20?"),
    (
        ["--conf=x"],
        nothing,
        "unrecognized arguments: --conf=x; did you mean --config?",
    ),
    (["--config.seed"], nothing, "argument --config.seed: expected one argument"),
    ([], foreign, "is not empty and holds no config.json"),
    ([], not_ours, "is not the config of a run"),
    ([], plain_file, "cannot be used"),
]


@pytest.mark.parametrize(("arguments", "prepare", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_a_mistake_ends_in_one_line(arguments, prepare, message, tmp_path, capsys) -> None:
    prepare(tmp_path / "run")
    before = sorted(path.name for path in tmp_path.glob("**/*"))
    code = train([TINY, f"--workdir={tmp_path / 'run'}", *arguments])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""
    left = {path.name for path in tmp_path.glob("**/*")} - set(before)
    assert left <= {"run", ".lock"}


BROKEN = [
    ("def get_config(): return 1 / 0", "raised ZeroDivisionError"),
    ("def get_config(:", "cannot be loaded: SyntaxError"),
    ("x = 1", "has no function get_config()"),
    ("from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'sede': 1})", "sede"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_recipe_is_named(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(text)
    assert train([f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "mine.py" in error
    assert message in error


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("finished") / "run"
    run(tiny.get_config(**{"run.steps": 14}), workdir)
    return workdir


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_another_recipe_is_refused_by_field(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        train(
            [TINY, f"--workdir={finished}", "--config.run.steps=14", "--config.optimizer.learning_rate=0.2"]
        )
        == 2
    )
    assert "another recipe: optimizer.learning_rate: 0.1 -> 0.2" in last_line(capsys)


def test_a_checkpoint_of_another_depth_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace("cifar_resnet8", "cifar_resnet14"))
    assert train([TINY, f"--workdir={tmp_path / 'run'}", "--config.model.name=cifar_resnet14"]) == 2
    assert "the checkpoint is of another net: " in last_line(capsys)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
def test_of_a_damaged_checkpoint_the_one_before_is_taken_with_a_warning(
    damage, finished, tmp_path, capsys
) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(finished, tmp_path / "run")
    damage(
        max(
            (tmp_path / "run" / "checkpoints" / "14").glob("**/*"),
            key=lambda path: path.stat().st_size * path.is_file(),
        )
    )
    assert train([TINY, f"--workdir={tmp_path / 'run'}", "--config.run.fallback=false"]) == 2
    assert "is damaged" in (error := last_line(capsys))
    assert "go on from step 7" in error
    # A run of 14 steps is complete with this checkpoint, and does not read it: it goes on when it is
    # lengthened.
    assert train([TINY, f"--workdir={tmp_path / 'run'}", "--config.run.steps=15"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "warning: " in captured.err
    assert f"moved to {tmp_path / 'run' / 'damaged' / '14'}, and the run resumes from step 7" in captured.err
    assert "resumes from step 7 of 15" in captured.out
    assert (tmp_path / "run" / "damaged" / "14").is_dir()
    whole, again = read_checkpoint(finished, 14), read_checkpoint(tmp_path / "run", 14)
    assert all(np.array_equal(array, again.arrays[name]) for name, array in whole.arrays.items())


def test_where_no_checkpoint_is_whole_the_run_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    for step in (7, 14):
        (tmp_path / "run" / "checkpoints" / str(step) / "checksums.json").unlink()
    assert train([TINY, f"--workdir={tmp_path / 'run'}"]) == 2
    assert "is whole (" in (error := last_line(capsys))
    assert "restore one from a copy" in error
    assert steps_in(tmp_path / "run") == [7, 14]


def test_evaluate_prints_what_the_run_recorded(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--workdir", str(finished), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    record = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    figures = {"loss", "top1", "top5", "balanced_accuracy", "macro_f1", "examples"}
    assert results.keys() == figures | {"step", "split", "protocol", "statistics"}
    assert results["examples"] == 25
    assert results["top1"] == pytest.approx(record["test_top1"])
    assert results["loss"] == pytest.approx(record["test_loss"], rel=1e-5)
    assert main(["evaluate", "--workdir", str(finished)]) == 0
    assert "25 images of test: accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir", "nowhere"], "nowhere holds no checkpoint"),
        (["--step", "3"], "has no checkpoint of step 3; it has 7, 14"),
    ],
)
def test_evaluate_of_what_is_not_there(arguments, message, finished: Path, capsys) -> None:
    assert main(["evaluate", "--workdir", str(finished), *arguments]) == 2
    assert message in last_line(capsys)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        TINY,
        f"--workdir={tmp_path / 'run'}",
        "--config.optimizer.learning_rate=1e18",
        "--config.run.checkpoint_every=1",
    ]
    assert train(arguments) == 1
    error = last_line(capsys)
    assert "at step" in error
    assert "lower --config.optimizer.learning_rate" in error
    step = int(error.split("at step ")[1].split(";")[0])
    assert all(saved < step for saved in steps_in(tmp_path / "run"))


def limit_size_of_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.slow
def test_a_disk_that_fills_during_a_save_ends_in_one_line_and_the_run_goes_on_later(tmp_path: Path) -> None:
    """Files that may not grow beyond 20 kB stand for the disk.

    The arrays of the first checkpoint do not fit.
    """
    workdir = tmp_path / "run"
    code, _, error = runs.finish(runs.start(workdir, remember_compiled=False, preexec_fn=limit_size_of_files))
    assert code == 1
    assert "Traceback" not in error
    assert error.count("\n") == 1, error
    assert "could not be written" in error
    assert steps_in(workdir) == []
    assert runs.finish(runs.start(workdir, "--config.run.steps=14"))[0] == 0


def test_a_full_disk_is_noticed_before_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:  # type: ignore[no-untyped-def]
    usage = shutil.disk_usage(tmp_path)
    full = lambda _: usage._replace(free=0 if steps_in(tmp_path / "run") else usage.free)  # noqa: E731
    monkeypatch.setattr("resnet_jax.training.checkpoint_files.shutil.disk_usage", full)
    assert train([TINY, f"--workdir={tmp_path / 'run'}"]) == 1
    error = last_line(capsys)
    assert "No space left on device" in error
    assert "resumes from step 7" in error


def test_unexpected_errors_keep_their_traceback() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guard(fail)


def test_list_names_nets_and_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"resnet50", "cifar_resnet20", "plain34", "vgg16"} <= set(listed["models"])
    assert "digits_resnet20" in listed["recipes"]


def test_what_a_failed_save_leaves_to_asyncio_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """When several arrays cannot be written, the tasks of all but the first end unheard."""
    assert guard(lambda: logging.getLogger("asyncio").error("Task exception was never retrieved")) == 0
    assert caplog.records == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_reading_is_no_error(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [
        sys.executable,
        "-c",
        "import sys; from resnet_jax.cli import guard, main; sys.exit(main(['list']))",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_resolves(name: str) -> None:
    assert load_recipe(name).model.name
