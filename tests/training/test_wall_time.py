"""The wall time of a run is divided into parts without a gap, however often it is killed."""

import contextlib
import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.training import event_files, logging, loop, stopwatch, wall_time
from resnet_jax.training.logging import MetricsLog
from resnet_jax.training.loop import Interrupted, train_steps
from resnet_jax.training.stopwatch import PARTS, STEP_PARTS, Stopwatch
from resnet_jax.training.wall_time import WallTime, WallTimeRecorder, describe_wall_time, read_wall_time
from tests.training import runs, tiny

EPOCH = 1.7e9
ROUNDING = 0.02


class FakeTime:
    """Stands for the module `time`: time passes where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return EPOCH + self.now

    def perf_counter(self) -> float:
        return self.now


@contextlib.contextmanager
def fake_time() -> Iterator[FakeTime]:
    with pytest.MonkeyPatch.context() as patch:
        clock = FakeTime()
        for module in (stopwatch, wall_time, logging):
            patch.setattr(module, "time", clock)
        yield clock


@dataclasses.dataclass
class Process:
    """A start of a run, and what it really spent its time on.

    Attributes:
        spent: Part, step and seconds, in order.
        stored: How many of them a record or wall_time.json holds.
        resumed: Step from which it resumed; None if it was killed before it told.
    """

    spent: list[tuple[str, int, float]] = dataclasses.field(default_factory=list)
    stored: int = 0
    resumed: int | None = None


class KilledError(Exception):
    """The process is gone."""


class Simulation:
    """A run on a fake clock that is killed and started again, and a second account of its time."""

    def __init__(self, workdir: Path, clock: FakeTime, *, log_every: int, checkpoint_every: int) -> None:
        self.workdir, self.records, self.saved = epath.Path(workdir), [], 0
        self._clock, self._log_every, self._checkpoint_every = clock, log_every, checkpoint_every
        self._processes: list[Process] = []
        self._left = 0.0

    def spend(self, part: str, seconds: float, step: int = 0) -> None:
        """Passes time; the process is killed within it if that is when."""
        passed = min(seconds, self._left)
        self._left -= passed
        self._processes[-1].spent.append((part, step, passed))
        self._clock.now += passed
        if passed < seconds:
            raise KilledError

    def start(self, dice: random.Random, killed_after: float, *, before_dropping: bool = False) -> None:
        """Runs a process to the end of 30 steps, or until it is killed, and leaves the run down for a while.

        Args:
            dice: Draws how long all takes.
            killed_after: Seconds after which the process is killed.
            before_dropping: Kill it between storing the time of lost steps and dropping their records.
        """
        self._processes.append(Process())
        self._left = killed_after
        with contextlib.suppress(KilledError):
            self._run(self._processes[-1], dice, before_dropping)
        self._left = float("inf")
        self.spend("down", 10 * dice.random())

    def _run(self, process: Process, dice: random.Random, before_dropping: bool) -> None:
        watch = Stopwatch()
        self.spend("starting", 5 * dice.random())
        with watch.measure("restoring"):
            self.spend("restoring", dice.random())
        recorder = WallTimeRecorder(self.workdir, self.records, step=self.saved, stopwatch=watch)
        process.resumed, process.stored = self.saved, len(process.spent)
        if before_dropping:
            raise KilledError
        self.records = [record for record in self.records if record["step"] <= self.saved]
        self.spend("starting", 5 * dice.random())
        watch.enter("computing")
        for step in range(self.saved + 1, 31):
            with watch.measure("input"):
                self.spend("input", 0.1 * dice.random(), step)
            self.spend("computing", dice.random(), step)
            if evaluated := step % 4 == 0:
                with watch.measure("evaluation"):
                    self.spend("evaluation", dice.random(), step)
            if evaluated or step % self._log_every == 0:
                watch.update()
                self.records.append({"step": step, "time": self._clock.time(), **recorder.fields(step)})
                process.stored = len(process.spent)
            if step % self._checkpoint_every == 0:
                with watch.measure("saving"):
                    self.spend("saving", dice.random(), step)
                self.saved = step
        recorder.close()
        process.stored = len(process.spent)

    def expected(self) -> dict[str, float]:
        """Returns the seconds of each part, from the start of the first process that told of itself."""
        sums = dict.fromkeys(PARTS, 0.0)
        first = next(number for number, one in enumerate(self._processes) if one.stored)
        for number, process in enumerate(self._processes[first:], start=first):
            resumed = [one.resumed for one in self._processes[number + 1 :] if one.resumed is not None]
            for place, (part, step, seconds) in enumerate(process.spent):
                lost = part in STEP_PARTS and step > min(resumed, default=step)
                sums["down" if place >= process.stored else "lost" if lost else part] += seconds
        sums["down"] -= self._processes[-1].spent[-1][2]
        return sums


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kills=st.lists(st.tuples(st.floats(0.01, 35), st.booleans()), max_size=5),
    log_every=st.sampled_from([1, 5]),
    checkpoint_every=st.integers(1, 7),
)
def test_parts_are_those_of_a_second_account(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    kills: list[tuple[float, bool]],
    log_every: int,
    checkpoint_every: int,
) -> None:
    """Where not every step is recorded, the time of a step is taken to be that of those around it."""
    dice, workdir = random.Random(seed), tmp_path_factory.mktemp("run")
    with fake_time() as clock:
        run = Simulation(workdir, clock, log_every=log_every, checkpoint_every=checkpoint_every)
        for after, before_dropping in kills:
            run.start(dice, after, before_dropping=before_dropping)
        run.start(dice, float("inf"))
    found, expected = read_wall_time(workdir, run.records), run.expected()
    assert found is not None
    assert found.total == pytest.approx(sum(expected.values()), abs=ROUNDING)
    for part in PARTS if log_every == 1 else ("restoring", "starting", "evaluation", "down"):
        assert found.seconds[part] == pytest.approx(expected[part], abs=ROUNDING), part
    for record in run.records:
        assert runs.first_start(record) == pytest.approx(found.time - found.total, abs=ROUNDING)
        assert min(record[f"seconds_{part}"] for part in PARTS) >= 0


KILLED = """
import json, os, sys, time
from etils import epath
from resnet_jax.training.stopwatch import Stopwatch

watch, workdir = Stopwatch(), epath.Path(sys.argv[1])
from resnet_jax.files import write_text
from resnet_jax.training.wall_time import WallTimeRecorder

metrics = workdir / "metrics.jsonl"
records = [json.loads(line) for line in metrics.read_text().splitlines(keepends=True) if line.endswith("\\n")]
saved = len(records) // 5 * 5
recorder = WallTimeRecorder(workdir, records, step=saved, stopwatch=watch)
write_text(metrics, "".join(json.dumps(record) + "\\n" for record in records[:saved]))
file = metrics.open("a")
watch.enter("computing")
for step in range(saved + 1, 10_000):
    time.sleep(0.002)
    watch.update()
    print(json.dumps({"step": step, "time": time.time(), **recorder.fields(step)}), file=file, flush=True)
"""
"""A run whose steps only take time, saved at every fifth; without JAX, so that it starts at once."""


def test_real_kills_leave_no_gap(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    dice, began, ended = random.Random(7), time.time(), []
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stderr=subprocess.PIPE)
        grown = _grows(tmp_path / "metrics.jsonl")
        runs.wait_until(grown, process)
        time.sleep(0.1 * dice.random())
        process.kill()
        ended.append(time.time())
        assert process.communicate()[1] == b""
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    assert records[-1]["starts"] == 6
    firsts = [runs.first_start(record) for record in records]
    assert max(firsts) - min(firsts) < 0.05
    assert began < firsts[0] < ended[0]
    assert ended[-1] - 1 < records[-1]["time"] < ended[-1]
    assert records[-1]["seconds_lost"] > 0
    assert records[-1]["seconds_down"] > 0


def _grows(file: Path) -> Callable[[], bool]:
    before = file.stat().st_mtime_ns, file.stat().st_ino

    def grown() -> bool:
        now = file.stat()
        return now.st_ino != before[1] and now.st_size > 0 and now.st_mtime_ns > before[0]

    return grown


class TimedTrainer:
    """Does nothing, for known times; the first step is compiled."""

    def __init__(self, clock: FakeTime) -> None:
        self._clock, self._compiled = clock, False
        self.records: list[dict[str, float]] = []

    def step(self, number: int, batch: int) -> int:
        assert number == batch
        self._clock.now += 1 if self._compiled else 1000
        self._compiled = True
        return number

    def report(self, number: int, metrics: int, _: int | None, clock: Any) -> None:
        assert number == metrics
        self.records.append(clock.tick(number))

    def settle(self) -> None:
        self._clock.now += 10

    def evaluate(self) -> int:
        self._clock.now += 20
        return 1

    def save(self, *_: object) -> None:
        self._clock.now += 40

    def wait(self) -> None:
        self._clock.now += 80


@pytest.mark.parametrize("stopped_at", [None, 5])
def test_the_loop_counts_every_second_once(stopped_at: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    options = tiny.get_config(**{"run.steps": 6, "run.evaluate_every": 4, "run.checkpoint_every": 3}).run
    with fake_time() as clock:

        def batches(_: object, start: int, stop: int, **__: object) -> Iterator[int]:
            for step in range(start, stop):
                clock.now += 0.25
                yield step + 1

        monkeypatch.setattr(loop, "read_ahead", batches)
        watch, trainer = Stopwatch(), TimedTrainer(clock)
        with contextlib.nullcontext() if stopped_at is None else pytest.raises(Interrupted):
            train_steps(
                trainer,
                {},  # type: ignore[arg-type]
                start=0,
                options=options,
                images=8,
                stop=lambda step: step == stopped_at,
                stopwatch=watch,
            )
        watch.update()
    seconds = {part: value for part, value in watch.seconds.items() if value}
    assert sum(seconds.values()) == clock.now
    if stopped_at is None:  # Evaluated at 4 and 6, saved at 3 and 6.
        expected = {"computing": 5 + 3 * 10, "input": 5 * 0.25, "evaluation": 2 * 20, "saving": 2 * 40 + 80}
    else:  # Evaluated at 4, saved at 3 and 5.
        expected = {"computing": 4 + 3 * 10, "input": 4 * 0.25, "evaluation": 20, "saving": 2 * 40 + 80}
    assert seconds == {"starting": 1000.25, **expected}
    assert trainer.records[1]["images_per_second"] == pytest.approx(8 / 1.25, rel=0.1)
    assert trainer.records[1]["input_share"] == pytest.approx(0.25 / 1.25, abs=1e-4)


def measured(step: int, **seconds: float) -> dict[str, float]:
    """Returns a record of a run that started at EPOCH."""
    parts = {part: float(seconds.get(part, 0)) for part in PARTS}
    return WallTime(step, EPOCH + sum(parts.values()), 1, parts).to_record()


def test_records_of_older_versions_are_no_time(tmp_path: Path) -> None:
    """The time is known from the start that measured it; what is lost of it counts from the step of then."""
    old = [{"step": step, "loss": 1.0, "time": EPOCH - 1000 + step} for step in range(1, 101)]
    with fake_time() as clock:
        recorder = WallTimeRecorder(epath.Path(tmp_path), old, step=100, stopwatch=Stopwatch())
        assert recorder.fields(100) == {
            name: value for name, value in measured(100).items() if name not in ("step", "time")
        }
        clock.now = 40
        new = [*old, measured(110, computing=40)]
        recorder = WallTimeRecorder(epath.Path(tmp_path), new, step=105, stopwatch=Stopwatch())
    fields = recorder.fields(105)
    assert (fields["starts"], fields["seconds_computing"], fields["seconds_lost"]) == (2, 20, 20)
    assert read_wall_time(tmp_path / "none", old) is None


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"step": 3}', '{"step": "three", "time": NaN}'])
def test_a_damaged_file_is_as_a_missing_one(damage: str, tmp_path: Path) -> None:
    (tmp_path / "wall_time.json").write_text(damage)
    assert read_wall_time(tmp_path, []) is None
    found = read_wall_time(tmp_path, [measured(3, computing=5)])
    assert found is not None
    assert found.total == 5


@pytest.mark.parametrize(("elapsed", "starting"), [(70, 10), (50, 0)])
def test_processes_that_overlap_count_no_second_twice(tmp_path: Path, elapsed: int, starting: int) -> None:
    """The clock of the machine that a run resumes on is a minute late."""
    records = [measured(9, computing=100)]
    with fake_time() as clock:
        clock.now = 40
        watch = Stopwatch()
        clock.now += elapsed
        recorder = WallTimeRecorder(epath.Path(tmp_path), records, step=9, stopwatch=watch)
        fields = recorder.fields(9)
    found = [fields[f"seconds_{part}"] for part in ("computing", "starting", "down")]
    assert found == [100, starting, 0]


def test_a_workdir_that_is_gone_ends_no_run(tmp_path: Path) -> None:
    workdir = epath.Path(tmp_path / "run")
    workdir.mkdir()
    recorder = WallTimeRecorder(workdir, [], step=0, stopwatch=Stopwatch())
    workdir.rmtree()
    recorder.close()
    assert not workdir.exists()


def test_the_line_names_what_took_a_hundredth() -> None:
    parts = {"computing": 3380, "input": 36, "saving": 184, "lost": 120, "down": 600}
    found = WallTime.of_record(measured(9, **parts))
    assert found is not None
    twice = dataclasses.replace(found, starts=2)
    assert found.goodput == pytest.approx(3380 / 3720)
    line = "1 h 02 min over 2 starts: computing 91%, saving 5%, lost 3%; down for 10 min 00 s"
    assert describe_wall_time(twice) == line
    alone = WallTime.of_record(measured(9, computing=8.5, starting=1.5))
    assert alone is not None
    assert describe_wall_time(alone) == "10 s over 1 start: computing 85%, starting 15%"


def test_events_hold_the_wall_time_at_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Events:
        def __init__(self, *_: object, **__: object) -> None: ...

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            written.append((tag, value, step))

        def close(self) -> None: ...

    monkeypatch.setattr(event_files, "SummaryWriter", Events)
    log = MetricsLog(epath.Path(tmp_path), step=0, tensorboard=True)
    log.write({"loss": 2.0, **measured(1, computing=1)})
    log.write({"loss": 1.0, "test_top1": 0.5, **measured(2, computing=2, starting=3)})
    log.close()
    assert written[:3] == [("train/loss", 2.0, 1), ("train/loss", 1.0, 2), ("test/top1", 0.5, 2)]
    assert {tag: value for tag, value, _ in written[3:]} == {
        "wall_time/starts": 1,
        **{f"wall_time/{part}": {"computing": 2, "starting": 3}.get(part, 0) for part in PARTS},
    }
