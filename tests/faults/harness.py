"""Kills a run at random moments, starts it again until it is done, and checks after every kill what is
left."""

import dataclasses
import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from resnet_jax.training.checkpoints import CheckpointError, read_checkpoint, steps_in
from resnet_jax.training.logging import read_metrics
from tests.training import runs

Group = list[subprocess.Popen[str]]
"""The processes of one run."""

MOMENTS = ("starting", "step", "save")
STARTING_SECONDS = 4.0
SAVING_SECONDS = 0.05
PEER_SECONDS = 60.0
"""Within which the other processes of a run end when one of them is killed."""


@dataclasses.dataclass
class Report:
    """What came of a run that was killed again and again.

    Attributes:
        kills: By SIGKILL.
        kills_during_saves: Of these, those after which a checkpoint was left unfinished.
        restarts: Starts but for the first.
        steps_lost: Recorded steps that had to be made again, in all.
        most_steps_lost: The same, by one kill.
        promised: Steps that one kill may cost: two intervals, the one of the checkpoint and the one that its
            save may take.
        corrupt_loads: Checkpoints that could not be read, differed from the undisturbed run's at that step,
            or were passed over.
        slowest_peer: Seconds until the other processes of a killed run had ended, at most.
        identical: The final state and all records equal the undisturbed run's, bit for bit.
    """

    promised: int
    kills: int = 0
    kills_during_saves: int = 0
    restarts: int = 0
    steps_lost: int = 0
    most_steps_lost: int = 0
    corrupt_loads: int = 0
    slowest_peer: float = 0.0
    identical: bool = False

    @property
    def kept(self) -> bool:
        """Tells whether all that is promised held."""
        return self.identical and not self.corrupt_loads and self.most_steps_lost <= self.promised


def disturb(
    launch: Callable[[], Group], workdir: Path, undisturbed: Path, *, kills: int, seed: int, interval: int
) -> Report:
    """Kills one process of the run in `workdir` this many times, and lets it end.

    Args:
        launch: Starts the processes of the run, with pipes for stdout and stderr that are not buffered.
        workdir: Of the run.
        undisturbed: Workdir of the same run without kills, complete, with checkpoints of the same steps kept.
        kills: How many; the steps at which, moments and victims are drawn from the seed.
        seed: Any number.
        interval: Steps from one checkpoint to the next.

    Raises:
        AssertionError: The run ended by itself before it could be killed, or failed; what it printed is told.
    """
    dice = random.Random(seed)
    report = Report(promised=2 * interval)
    last = int(read_metrics(undisturbed)[-1]["step"]) - 3 * interval
    moments = [MOMENTS[number % len(MOMENTS)] for number in range(kills)]
    dice.shuffle(moments)
    for step, moment in zip(sorted(dice.choices(range(1, last), k=kills)), moments, strict=True):
        _kill_once(launch(), workdir, report, dice, step=step, moment=moment)
        report.corrupt_loads += corrupt_checkpoints(workdir, undisturbed)
    began = steps_in(workdir)
    for process in launch():
        code, out, err = runs.finish(process)
        assert code == 0, err
        check_beginning(report, out, err, began)
    report.restarts = report.kills
    runs.check_wall_time(workdir)
    try:
        runs.assert_same_outcome(undisturbed, workdir)
        report.identical = True
    except AssertionError:
        report.identical = False
    return report


def _kill_once(
    group: Group, workdir: Path, report: Report, dice: random.Random, *, step: int, moment: str
) -> None:
    """Kills one of the processes, from a step on, or from a step on while the next save is written.

    Or all while they start.
    """
    launched, began = time.time(), steps_in(workdir)
    alive = group[0]
    if moment == "starting":
        until = time.monotonic() + dice.uniform(0, STARTING_SECONDS)
        runs.wait_until(lambda: time.monotonic() > until or bool(_made(workdir, launched)), alive)
    else:
        runs.wait_until(lambda: runs.logged_step(workdir) >= step and bool(_made(workdir, launched)), alive)
        if moment == "save":
            runs.wait_until(lambda: bool(_unfinished(workdir)), alive)
        time.sleep(dice.uniform(0, SAVING_SECONDS))
    # Those that have not joined yet do not miss each other: they wait.
    for victim in group if moment == "starting" else [dice.choice(group)]:
        assert victim.poll() is None, victim.communicate()
        victim.kill()
    killed = time.monotonic()
    for process in group:
        out, err = process.communicate(timeout=PEER_SECONDS)
        assert process.returncode, "a process ended well whose peer was killed"
        check_beginning(report, out, err, began)
    report.slowest_peer = max(report.slowest_peer, time.monotonic() - killed if len(group) > 1 else 0.0)
    left = steps_in(workdir)
    reached, resumable = max([*_made(workdir, launched), *left, 0]), (left or [0])[-1]
    report.kills += 1
    report.kills_during_saves += bool(_unfinished(workdir))
    report.steps_lost += reached - resumable
    report.most_steps_lost = max(report.most_steps_lost, reached - resumable)


def _made(workdir: Path, since: float) -> list[int]:
    return [int(record["step"]) for record in read_metrics(workdir) if record["time"] > since]


def _unfinished(workdir: Path) -> list[Path]:
    return [path for path in (workdir / "checkpoints").glob("*") if "tmp" in path.name]


def check_beginning(report: Report, out: str, err: str, checkpoints: list[int]) -> None:
    """Counts a start that did not go on from the newest checkpoint that was there."""
    report.corrupt_loads += "is damaged" in err
    opening = re.search(r"resumes from step (\d+) of", out)
    if opening:
        assert [int(opening[1])] == checkpoints[-1:], f"{opening[0]}, of checkpoints {checkpoints}"


def corrupt_checkpoints(workdir: Path, undisturbed: Path) -> int:
    """Returns how many checkpoints are not as the undisturbed run's.

    Of one older than the newest two a part may be deleted.
    """
    corrupt, newest = 0, steps_in(workdir)[-2:]
    for step in steps_in(workdir):
        try:
            found, expected = read_checkpoint(workdir, step).arrays, read_checkpoint(undisturbed, step).arrays
        except CheckpointError:
            corrupt += step in newest
            continue
        same = found.keys() == expected.keys() and all(
            np.array_equal(found[name], expected[name]) for name in expected
        )
        corrupt += not same
    return corrupt
