"""Processes that join without training.

They agree or say what differs, and none outlives another that is gone.
"""

from pathlib import Path

import pytest

from resnet_jax.parallel import ProcessError, Processes
from tests.training.processes import finish, kill, started

JOINED = """
import sys, time
from resnet_jax.parallel import Processes, ProcessError
given = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
us = Processes()
us.join(coordinator=given["coordinator"], count=int(given["processes"]), index=int(given["process"]))
us.agree("color", {"hue": "blue"})
"""
WAITING = "print('joined', flush=True)\ntime.sleep(300)"
FAILING = "if us.index == 1: us.part(3, 'the disk of process 1 is full')\ntime.sleep(300)"
DISAGREEING = """
try:
    us.agree("taste", {"sweet": us.index % 2, "sour": 7, **({"salty": 1} if us.index == 2 else {})})
except ProcessError as error:
    print(error)
us.part(0, "")
"""


@pytest.mark.parametrize("victim", [0, 2])
def test_who_is_killed_is_named_and_ends_the_others(tmp_path: Path, victim: int) -> None:
    with started(tmp_path, 3, program=JOINED + WAITING) as running:
        for process in running:
            assert process.stdout is not None
            while process.stdout.readline() not in ("joined\n", ""):
                pass
        kill(running, victim)


def test_one_that_fails_tells_the_others_why(tmp_path: Path) -> None:
    with started(tmp_path, 3, program=JOINED + FAILING) as running:
        ended = finish(running, timeout=120)
    assert [code for code, _, _ in ended] == [3, 3, 3]
    for other in (0, 2):
        assert "process 1 (" in ended[other][2]
        assert "ended: the disk of process 1 is full" in ended[other][2]


def test_what_differs_is_named_on_all_and_all_part(tmp_path: Path) -> None:
    with started(tmp_path, 3, program=JOINED + DISAGREEING) as running:
        for code, out, err in finish(running, timeout=120):
            assert code == 0, err
            assert (
                "the processes do not have the same taste: salty (absent on process 0, 1, 1 on process 2); "
                "sweet (0 on process 0, 2, 1 on process 1); start all with the same command" in out
            )


@pytest.mark.slow
def test_one_that_the_others_do_not_join_says_so(tmp_path: Path) -> None:
    impatient = "import resnet_jax.parallel.processes as p\np.JOINING_SECONDS = 2\n"
    with started(tmp_path, 2, program=impatient + JOINED) as running:
        running[1].kill()
        ((code, _, err),) = finish(running[:1], timeout=120)
    assert code == 1  # Launchers start all again after 1, and not after 2.
    assert "could not join within 2 s; check that all were started and reach the first" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator": "a:1"}, "belong together; give --processes and --process too"),
        ({"count": 2, "index": 0}, "give --coordinator too"),
        ({"coordinator": "host", "count": 2, "index": 0}, "is 'host'; it must be HOST:PORT"),
        (
            {"coordinator": "host:1", "count": 2, "index": 2},
            "--process is 2 and --processes 2; processes are numbered from 0 to 1",
        ),
    ],
)
def test_flags_that_do_not_fit_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ProcessError, match=message):
        Processes().join(**arguments)


def test_a_pod_of_an_indexed_job_does_not_train_alone_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ProcessError, match=r"pip install 'jax\[k8s\]'"):
        Processes().join()


def test_outside_of_a_cluster_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    us = Processes()
    us.join(count=1)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # A pod, but not one of an indexed job.
    us.join()
    us.agree("anything", {})
    us.part(0, "")
    assert (us.index, us.count, us.first) == (0, 1, True)
