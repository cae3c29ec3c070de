"""A run whose data and workdir are in object storage is killed, resumes, and ends as one on a disk does."""

import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from etils import epath

import resnet_jax as rj
from resnet_jax.cli import main
from resnet_jax.object_storage import list_objects, upload_directory
from resnet_jax.training.checkpoints import read_checkpoint, steps_in
from resnet_jax.training.logging import read_metrics
from tests.data.photographs import write_folder
from tests.object_storage.server import BUCKET, Server, serving
from tests.training import processes, runs, tiny

STEPS, SAVED_EVERY = 24, 5
FLAGS = (f"--config.run.steps={STEPS}", f"--config.run.checkpoint_every={SAVED_EVERY}")
TENSORBOARD = "--config.run.tensorboard=true"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), proxied=True) as server:
        yield server


def kill_after(step: int, running: list[subprocess.Popen[str]], *, victim: int = 0) -> None:
    """Kills a process when it has printed a step."""
    output = running[0].stdout
    assert output is not None
    for line in output:
        if (found := re.match(r"step (\d+)/", line)) and int(found[1]) >= step:
            break
    else:
        pytest.fail(f"it ended by itself: {processes.finish(running)}")
    for process in running[victim:] if victim == 0 else [running[victim]]:
        process.send_signal(signal.SIGKILL)
    for process in running:
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a disk."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    with processes.started(workdir, 1, *FLAGS) as running:
        assert processes.finish(running)[0][0] == 0
    return workdir


@pytest.fixture(scope="module")
def killed(server: Server) -> epath.Path:
    """The same in the bucket, killed in its middle and started again."""
    del server
    workdir = epath.Path(f"{BUCKET}/run")
    with processes.started(workdir, 1, *FLAGS, TENSORBOARD) as running:
        kill_after(12, running)
    assert 0 < steps_in(workdir)[-1] < STEPS
    with processes.started(workdir, 1, *FLAGS, TENSORBOARD) as running:
        code, _, err = processes.finish(running)[0]
    assert code == 0, err
    return workdir


def test_a_killed_run_resumes_and_ends_as_on_a_disk(undisturbed: Path, killed: epath.Path) -> None:
    runs.assert_same_outcome(undisturbed, killed)
    assert [record["step"] for record in read_metrics(killed)] == list(range(1, STEPS + 1))
    names = {name.split("/")[0] for name in list_objects(killed)}
    files = {"config.json", "curves.png", "data.json", "devices.json", "metrics.jsonl", "wall_time.json"}
    assert names == {"checkpoints", "tensorboard"} | files
    for step in steps_in(killed):
        assert read_checkpoint(killed, step).step == step


@pytest.mark.slow
def test_a_copied_run_goes_on_there_from_its_newest_whole_checkpoint(
    undisturbed: Path, server: Server
) -> None:
    upload_directory(undisturbed, f"{BUCKET}/copied")
    workdir = epath.Path(f"{BUCKET}/copied")
    assert steps_in(workdir) == [20, STEPS]
    newest = undisturbed / "checkpoints" / str(STEPS)
    victim = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    (workdir / victim.relative_to(undisturbed)).write_bytes(b"something else")
    with processes.started(workdir, 1, *FLAGS[1:], f"--config.run.steps={STEPS + 1}") as running:
        code, out, err = processes.finish(running)[0]
    assert code == 0, err
    assert "resumes from step 20" in out
    assert f"is moved to {BUCKET}/copied/damaged/{STEPS}" in err
    assert list_objects(workdir / "damaged" / str(STEPS))
    assert runs.timeless(workdir)[: STEPS - 1] == runs.timeless(undisturbed)[: STEPS - 1]
    assert not (server.files / "copied" / ".lock").exists()


def test_commands_take_urls(killed: epath.Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(killed), "--to", f"{BUCKET}/report.html"]) == 0
    assert main(["evaluate", "--workdir", str(killed), "--json"]) == 0
    assert main(["export", "--workdir", str(killed), "--to", str(tmp_path / "net.safetensors")]) == 0
    assert "report.html" in list_objects(BUCKET)
    trained = rj.load(str(killed))
    assert trained.step == STEPS
    assert repr(trained).startswith("Trained(name='cifar_resnet8'")
    assert len(repr(trained)) < 300
    capsys.readouterr()
    assert main(["train", "--workdir", "gs://no-such-bucket/run", f"--config={tiny.PATH}"]) == 2
    assert main(["train", "--workdir", "s3://bucket/run", f"--config={tiny.PATH}"]) == 2
    assert main(["evaluate", "--workdir", f"{BUCKET}/nothing"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3, lines


@pytest.mark.slow
@pytest.mark.parametrize(("count", "share"), [(1, 0.05), (2, 0.0), (2, 0.05)])
def test_whatever_happens_it_ends_as_on_a_disk(tmp_path: Path, count: int, share: float) -> None:
    photographs = write_folder(tmp_path / "photographs", train=12, val=4)
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from tests.training import tiny\n\n\ndef get_config():\n"
        "    config = tiny.get_config()\n    config.data.crop = 'scale'\n    config.data.image_size = 32\n"
        "    config.data.scales = (40, 48)\n    config.data.test_scale = 40\n    config.data.pad = 0\n"
        "    config.data.mean = 'channel'\n"
        "    config.data.train_split, config.data.test_split = 'train', 'val'\n    return config\n"
    )
    devices = ("--config.run.devices=2",)
    local = tmp_path / "local"
    own = (*FLAGS, "--config.run.keep=1000", *devices)
    own += (f"--config.data.source={photographs}",)
    with processes.started(local, count, *own, config=str(recipe)) as running:
        ended = processes.finish(running)
    assert [code for code, *_ in ended] == [0] * count, ended
    dice = random.Random(count)
    with serving(tmp_path / "server", share=share, seed=5, proxied=True) as server:
        upload_directory(photographs, f"{BUCKET}/photographs")
        workdir = epath.Path(f"{BUCKET}/run")
        more = (*FLAGS, *devices, f"--config.data.source={BUCKET}/photographs")
        for _ in range(3):
            with processes.started(workdir, count, *more, config=str(recipe)) as running:
                kill_after(dice.randint(2, STEPS - 6), running, victim=dice.randrange(count))
            time.sleep(dice.random())
        with processes.started(workdir, count, *more, config=str(recipe)) as running:
            ended = processes.finish(running)
        assert [code for code, *_ in ended] == [0] * count, ended
        runs.assert_same_outcome(local, workdir)
        assert [record["step"] for record in read_metrics(workdir)] == list(range(1, STEPS + 1))
        for step in steps_in(workdir):
            here, there = read_checkpoint(local, step).arrays, read_checkpoint(workdir, step).arrays
            for name, array in here.items():
                np.testing.assert_array_equal(array, there[name], err_msg=f"{step} {name}")
        assert share == 0 or {fault for fault, *_ in server.requests()} > {"unanswered", "cut"}
