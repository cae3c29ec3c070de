"""launch/gpu_machine.sh installs once and completely, and passes on signals and exit codes."""

import signal
from pathlib import Path

import pytest

from tests.launch.worlds import World

PYTHON3 = """echo "python3 $*" >> $STAND_IN/calls.txt
mkdir -p .venv/bin; ln -sf $STAND_IN/bin/venv_python .venv/bin/python; exit $(cat $STAND_IN/code.venv)"""
VENV_PYTHON = """trap 'echo saves >> $STAND_IN/calls.txt; exit 75' TERM
echo "$*" >> $STAND_IN/calls.txt
[ "$1" != -m ] || exit $(cat $STAND_IN/code.install)
while [ -e $STAND_IN/hold ]; do sleep 0.02; done
exit $(cat $STAND_IN/code.train)"""
INSTALL = "-m pip install --editable .[cuda,gcs]"
TRAIN = "train.py --config=imagenet_pod:1024 --config.data.source=/d d"


def world(folder: Path, *, venv: int = 0, install: int = 0, train: int = 0) -> World:
    """Makes a checkout whose commands end with the codes."""
    made = World(folder / "world", {"python3": PYTHON3, "venv_python": VENV_PYTHON})
    for name, code in (("venv", venv), ("install", install), ("train", train)):
        (made.folder / f"code.{name}").write_text(str(code))
    for name in ("train.py", "pyproject.toml"):
        (made.folder / name).touch()
    return made


def test_it_installs_once(tmp_path: Path) -> None:
    made = world(tmp_path)
    assert made.run("gpu_machine.sh", DATA="/d d")[0] == 0
    assert made.run("gpu_machine.sh", "--workdir=a b", DATA="/d d")[0] == 0
    assert made.calls == ["python3 -m venv .venv", INSTALL, TRAIN, f"{TRAIN} --workdir=a b"]


@pytest.mark.parametrize("fault", ["venv", "install"])
def test_an_installation_that_failed_is_repeated(fault: str, tmp_path: Path) -> None:
    made = world(tmp_path, **{fault: 1})
    code, output = made.run("gpu_machine.sh", DATA="/d d")
    assert code == 1
    assert "installing failed; the same command tries again" in output
    assert TRAIN not in made.calls
    (made.folder / f"code.{fault}").write_text("0")
    assert made.run("gpu_machine.sh", DATA="/d d")[0] == 0
    assert made.calls[-2:] == [INSTALL, TRAIN]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (0, "trained"),
        (75, "stopped and saved; the same command resumes"),
        (1, "ended with exit code 1"),
        (2, "ended with exit code 2"),
    ],
)
def test_ends(code: int, says: str, tmp_path: Path) -> None:
    got, output = world(tmp_path, train=code).run("gpu_machine.sh", DATA="/d d")
    assert got == code
    assert says in output.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_training(number: signal.Signals, tmp_path: Path) -> None:
    made = world(tmp_path)
    (made.folder / "hold").touch()
    process = made.start("gpu_machine.sh", DATA="/d d")
    made.wait_for(process, lambda: TRAIN in made.calls)
    process.send_signal(number)  # Not to the group: as `kill` and systemd do.
    code, output = made.end(process)
    assert code == 75, output
    assert made.calls[-1] == "saves"


def test_outside_of_the_checkout(tmp_path: Path) -> None:
    made = world(tmp_path)
    (made.folder / "train.py").unlink()
    code, output = made.run("gpu_machine.sh", DATA="/d d")
    assert code == 2
    assert "run this from the checkout" in output
    assert made.calls == []
