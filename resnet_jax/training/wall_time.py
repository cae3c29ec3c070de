"""Goodput: how the wall time of a run divides into parts, over all starts and kills.

Every record of metrics.jsonl holds the seconds of each part since the first start. `wall_time.json` holds the
same at the newest start and at the end of the process, so that a process that dies before its first record
is counted, and so are the steps whose records are dropped.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Self

from etils import epath

from resnet_jax.console import format_duration
from resnet_jax.files import PathLike, as_path, read_json, write_json
from resnet_jax.training.stopwatch import PARTS, STEP_PARTS, Stopwatch

WALL_TIME = "wall_time.json"
STARTS = "starts"
SECONDS = "seconds_"
WALL_TIME_FIELDS = frozenset({STARTS, *(SECONDS + part for part in PARTS)})
"""Fields of a record that hold the wall time so far."""

LEAST_SHOWN = 0.01
"""Share of the time from which on a part is in the line at the end of a run."""


@dataclasses.dataclass(frozen=True)
class WallTime:
    """The wall time of a run from its first start to a moment.

    Attributes:
        step: Last step that was made.
        time: The moment, in seconds since the epoch.
        starts: Number of starts.
        seconds: Seconds of each of PARTS.

    Example:
        >>> wall_time = read_wall_time(workdir, read_metrics(workdir))
        >>> wall_time.goodput, wall_time.seconds["lost"]
    """

    step: int
    time: float
    starts: int
    seconds: Mapping[str, float]

    @classmethod
    def of_record(cls, record: object) -> Self | None:
        """Returns the wall time that a record holds; None if it holds none, as those of older versions."""
        if not isinstance(record, dict):
            return None
        names = ("step", "time", STARTS, *(SECONDS + part for part in PARTS))
        values = (record.get(name) for name in names)
        found = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
        if len(found) < len(names):
            return None
        step, moment, starts, *seconds = found
        return cls(int(step), moment, int(starts), dict(zip(PARTS, seconds, strict=True)))

    def to_record(self) -> dict[str, float]:
        """Returns the fields of a record that hold it."""
        seconds = {SECONDS + part: round(self.seconds[part], 3) for part in PARTS}
        return {"step": self.step, "time": round(self.time, 3), STARTS: self.starts, **seconds}

    @property
    def total(self) -> float:
        """Seconds from the first start to `time`."""
        return sum(self.seconds.values())

    @property
    def running(self) -> float:
        """Seconds during which a process is known to have run."""
        return self.total - self.seconds["down"]

    @property
    def goodput(self) -> float:
        """Share of `running` that was spent computing steps that count."""
        return self.share("computing")

    def share(self, part: str) -> float:
        """Returns a part's share of `running`."""
        return self.seconds[part] / self.running if self.running > 0 else 0.0


class WallTimeRecorder:
    """Adds the time of this process to that of the starts before it, and stores it in wall_time.json.

    Args:
        workdir: Directory of the run.
        records: Its records, also those beyond the step that the run resumes from.
        step: The step that the run resumes from.
        stopwatch: Measures the time of this process.
    """

    def __init__(
        self, workdir: epath.Path, records: Sequence[Mapping[str, float]], *, step: int, stopwatch: Stopwatch
    ) -> None:
        self._path, self._step, self._stopwatch = workdir / WALL_TIME, step, stopwatch
        stopwatch.update()
        self._before = time_before(
            _known(workdir, records),
            step=step,
            started=stopwatch.started,
            elapsed=sum(stopwatch.seconds.values()),
        )
        stopwatch.update()
        self._store()

    def fields(self, step: int) -> dict[str, float]:
        """Returns WALL_TIME_FIELDS as of the last update of the stopwatch, for the record of a step."""
        self._step = max(self._step, step)
        fields = self._now().to_record()
        return {name: fields[name] for name in fields if name in WALL_TIME_FIELDS}

    def close(self) -> None:
        """Stores the time up to now, if the workdir can still be written: no run fails because of it."""
        self._stopwatch.update()
        with contextlib.suppress(OSError):
            self._store()

    def _now(self) -> WallTime:
        mine = self._stopwatch.seconds
        seconds = {part: self._before.seconds[part] + mine[part] for part in PARTS}
        return WallTime(self._step, time.time(), self._before.starts, seconds)

    def _store(self) -> None:
        write_json(self._path, self._now().to_record())


def time_before(known: Sequence[WallTime], *, step: int, started: float, elapsed: float) -> WallTime:
    """Returns the wall time of a run before a start, which is counted in `starts`.

    The time of steps beyond `step` becomes lost, and the time since the last that is known becomes down.

    Args:
        known: What records and wall_time.json hold.
        step: The step that the run resumes from.
        started: When the process started.
        elapsed: Seconds since then.
    """
    if not known:
        return WallTime(step, started, 1, dict.fromkeys(PARTS, 0.0))
    last = max(known, key=lambda one: (one.starts, one.total))
    kept = _seconds_at(step, known)
    kept = {part: min(kept[part], last.seconds[part]) for part in STEP_PARTS}
    seconds = {**last.seconds, **kept}
    seconds["lost"] += sum(last.seconds[part] - kept[part] for part in STEP_PARTS)
    gap = started - last.time
    if gap >= 0:
        seconds["down"] += gap
    else:  # The same process trained before, or the clocks of two machines differ: nothing counts twice.
        seconds["starting"] += max(gap, -elapsed)
    return WallTime(step, started, last.starts + 1, seconds)


def _seconds_at(step: int, known: Sequence[WallTime]) -> dict[str, float]:
    """Returns the seconds of STEP_PARTS up to a step, between two records in proportion to the steps."""
    before = max(
        (one for one in known if one.step <= step),
        key=lambda one: (one.step, one.total),
        default=WallTime(0, 0.0, 0, dict.fromkeys(PARTS, 0.0)),
    )
    after = min(
        (one for one in known if one.step > step), key=lambda one: (one.step, one.total), default=before
    )
    share = (step - before.step) / (after.step - before.step) if after is not before else 0.0
    # A record holds the evaluation of its step; the save of a step is in the record after it.
    shares = {"computing": share, "input": share, "evaluation": 0.0, "saving": 1.0}
    return {
        part: before.seconds[part] + shares[part] * (after.seconds[part] - before.seconds[part])
        for part in STEP_PARTS
    }


def describe_wall_time(wall_time: WallTime) -> str:
    """Returns a line: how long the run took, and the parts that are at least a hundredth of that.

    Example:
        >>> describe_wall_time(wall_time)
        '1 h 02 min over 3 starts: computing 91%, starting 5%, lost 3%; down for 10 min 00 s'
    """
    shares = {part: wall_time.share(part) for part in PARTS if part != "down"}
    parts = ", ".join(f"{part} {share:.0%}" for part, share in shares.items() if share >= LEAST_SHOWN)
    starts = f"{wall_time.starts} start{'s' if wall_time.starts > 1 else ''}"
    down = f"; down for {format_duration(wall_time.seconds['down'])}" if wall_time.starts > 1 else ""
    return f"{format_duration(wall_time.running)} over {starts}: {parts}{down}"


def read_wall_time(workdir: PathLike, records: Sequence[Mapping[str, float]]) -> WallTime | None:
    """Returns the newest wall time of a run; None if it was trained by a version that measured none.

    Args:
        workdir: Directory of the run.
        records: Its records.
    """
    known = _known(as_path(workdir), records)
    return max(known, key=lambda one: (one.starts, one.total)) if known else None


def _known(workdir: epath.Path, records: Sequence[Mapping[str, float]]) -> list[WallTime]:
    stored: object = None
    with contextlib.suppress(OSError, ValueError):  # A damaged file is as one that is missing.
        stored = read_json(workdir / WALL_TIME)
    found = map(WallTime.of_record, (stored, *records))
    return [one for one in found if one is not None]
