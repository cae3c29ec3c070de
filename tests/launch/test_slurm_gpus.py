"""launch/slurm_gpus.sh requeues a job that saved, and nothing else, whatever srun and scontrol do."""

import signal
from pathlib import Path

import pytest

from tests.launch.worlds import World

SRUN = """trap 'echo srun got TERM >> $STAND_IN/calls.txt' TERM
echo "srun $*" >> $STAND_IN/calls.txt; echo "log of srun"
while [ -e $STAND_IN/hold ]; do sleep 0.02; done
exit $(cat $STAND_IN/code.srun)"""
SCONTROL = 'echo "scontrol $*" >> $STAND_IN/calls.txt; exit $(cat $STAND_IN/code.scontrol)'
NAMES = {"DATA": "/d d", "RUNS": "/r", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "resnet-jax"}
REQUEUE = "scontrol requeue 7"


def world(folder: Path, *, step: int = 0, requeue: int = 0, venv: bool = True) -> World:
    """Makes a job whose step ends with a code."""
    made = World(folder / "world", {"srun": SRUN, "scontrol": SCONTROL})
    (made.folder / "code.srun").write_text(str(step))
    (made.folder / "code.scontrol").write_text(str(requeue))
    if venv:
        (made.folder / ".venv" / "bin").mkdir(parents=True)
        (made.folder / ".venv" / "bin" / "python").symlink_to("/bin/true")
    return made


@pytest.mark.parametrize(
    ("step", "requeue", "names", "code", "says", "requeued"),
    [
        (0, 0, {}, 0, "trained", False),
        (75, 0, {}, 0, "stopped and saved; requeued", True),
        (75, 0, {"SLURM_RESTART_COUNT": "99"}, 0, "stopped and saved; requeued", True),
        (75, 0, {"SLURM_RESTART_COUNT": "100"}, 75, "not requeued after 100 restarts; submit", False),
        (75, 1, {}, 75, "SLURM does not requeue it; submit the same command again", True),
        (1, 0, {}, 1, "failed with exit code 1", False),
        (2, 0, {}, 2, "failed with exit code 2", False),
        (137, 0, {}, 137, "failed with exit code 137", False),
    ],
)
def test_ends(
    step: int, requeue: int, names: dict[str, str], code: int, says: str, requeued: bool, tmp_path: Path
) -> None:
    made = world(tmp_path, step=step, requeue=requeue)
    got, output = made.run("slurm_gpus.sh", **NAMES | names)
    assert got == code, output
    assert says in output.splitlines()[-1]
    assert made.calls[0] == (
        "srun --gpu-bind=none --kill-on-bad-exit=0 .venv/bin/python train.py --config=imagenet_pod:8192 "
        "--config.data.source=/d d --workdir=/r/resnet-jax"
    )
    assert made.calls[1:] == [REQUEUE] * requeued


def test_the_script_waits_for_a_step_that_saves_when_slurm_ends_the_job(tmp_path: Path) -> None:
    made = world(tmp_path, step=75)
    (made.folder / "hold").touch()
    process = made.start("slurm_gpus.sh", **NAMES)
    made.send(process, lambda: made.count("srun") == 1, signal.SIGTERM)

    def saved() -> bool:
        if told := made.count("srun got TERM") == 1:
            (made.folder / "hold").unlink(missing_ok=True)
        return told

    code, output = made.end(process, saved)
    assert code == 75
    assert "SLURM ended the job (exit code 75)" in output
    assert REQUEUE not in made.calls  # Else scancel would end nothing.


def test_without_an_environment_or_sbatch(tmp_path: Path) -> None:
    made = world(tmp_path, venv=False)
    code, output = made.run("slurm_gpus.sh", **NAMES)
    assert code == 2
    assert "submit from the checkout" in output
    code, output = made.run("slurm_gpus.sh", **NAMES | {"SLURM_JOB_ID": ""})
    assert code != 0
    assert "start this with sbatch" in output
    assert made.calls == []
