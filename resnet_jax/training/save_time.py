"""How long a save takes, against the grace period of a preemption and the time between two saves.

A preempted machine is sent SIGTERM and is stopped after its grace period. A run then finishes the steps under
way, waits for a save that is under way, and saves.
"""

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from resnet_jax.errors import UsageError
from resnet_jax.files import PathLike, as_path
from resnet_jax.training.checkpoint_files import innermost_cause

MEGABYTE = 1e6
TPU_VM_GRACE = 30.0
"""Seconds of notice of a preempted TPU VM or other spot VM (docs.cloud.google.com/compute, "Spot VMs").

GKE grants at most 15 of them to the pods of a node (docs.cloud.google.com/kubernetes-engine, "Spot VMs")."""
STEPS_UNDER_WAY = 2
"""Steps that the loop has dispatched when the signal comes; they are finished first."""
_MEASURED = 128  # Blocks.
_BLOCK = 2**20


class BandwidthError(UsageError):
    """A file to measure the bandwidth with that is there already or cannot be written."""


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """Bytes in a second that a checkpoint is written with, and where the number comes from.

    Attributes:
        bytes_per_second: The number.
        source: "assumed", "given" or "measured".
    """

    bytes_per_second: float
    source: str


ASSUMED = Bandwidth(100 * MEGABYTE, "assumed")
"""What one host writes to a bucket, where nothing better is known."""


@dataclasses.dataclass(frozen=True)
class SaveTime:
    """A save of a recipe's state.

    Attributes:
        checkpoint_bytes: Bytes of its arrays.
        bandwidth: What they are written with, by the first process.
        grace_seconds: Seconds from SIGTERM to the end of the machine.
        checkpoint_every: Steps between two saves.
        step_seconds: Seconds of a step; None if they are not known.
    """

    checkpoint_bytes: int
    bandwidth: Bandwidth
    grace_seconds: float
    checkpoint_every: int
    step_seconds: float | None

    @property
    def seconds(self) -> float:
        """How long a save takes."""
        return self.checkpoint_bytes / self.bandwidth.bytes_per_second

    @property
    def stop_seconds(self) -> float:
        """From SIGTERM to a whole checkpoint, if no other save is under way."""
        return self.seconds + STEPS_UNDER_WAY * (self.step_seconds or 0.0)

    @property
    def fits_grace(self) -> bool:
        """Whether a run that is preempted is saved in time, if no other save is under way."""
        return self.stop_seconds <= self.grace_seconds

    @property
    def fits_grace_during_save(self) -> bool:
        """The same if another save has just begun, for which the last one waits."""
        return self.stop_seconds + self.seconds <= self.grace_seconds

    @property
    def seconds_between_saves(self) -> float | None:
        """Seconds of the steps between two saves."""
        return None if self.step_seconds is None else self.step_seconds * self.checkpoint_every

    @property
    def stalls_loop(self) -> bool | None:
        """Whether a save takes longer than the steps until the next, which then waits for it."""
        between = self.seconds_between_saves
        return None if between is None else self.seconds > between

    @property
    def most_steps_lost(self) -> int:
        """Most steps that a preemption loses.

        If there is time for one save, they are the steps since a save under way began. Otherwise that save
        is lost too, and the steps before it.
        """
        if self.fits_grace_during_save:
            return 0
        return self.checkpoint_every * (1 if self.fits_grace else 2)

    def to_json(self) -> dict[str, Any]:
        """Returns the figures; those that need the time of a step are null if it is not known."""
        return {
            "checkpoint_bytes": self.checkpoint_bytes,
            "bytes_per_second": self.bandwidth.bytes_per_second,
            "bandwidth_source": self.bandwidth.source,
            "seconds_estimate": self.seconds,
            "grace_seconds": self.grace_seconds,
            "stop_seconds_estimate": self.stop_seconds,
            "fits_grace": self.fits_grace,
            "fits_grace_during_save": self.fits_grace_during_save,
            "most_steps_lost": self.most_steps_lost,
            "checkpoint_every": self.checkpoint_every,
            "seconds_between_saves_estimate": self.seconds_between_saves,
            "stalls_loop": self.stalls_loop,
        }

    def describe(self) -> list[str]:
        """Returns lines about the save, the grace period, and the time between saves."""
        rate = f"{self.bandwidth.bytes_per_second / MEGABYTE:,.4g} MB/s ({self.bandwidth.source})"
        return [
            f"{self.checkpoint_bytes / MEGABYTE:,.1f} MB, {_seconds(self.seconds)} at {rate}",
            self._describe_grace(),
            *self._describe_interval(),
        ]

    def _describe_grace(self) -> str:
        grace = f"grace period of {_seconds(self.grace_seconds)}"
        if self.fits_grace_during_save:
            return f"fits the {grace}, even if another save is under way: a preemption loses no step"
        lost = f"at most {self.most_steps_lost:,} steps are lost"
        if self.fits_grace:
            return (
                f"fits the {grace}, unless another save is under way: then only that one becomes whole, and "
                f"{lost} (run.checkpoint_every)"
            )
        return (
            f"does not fit the {grace}: a preempted run is killed before its checkpoint is whole and resumes "
            f"from an earlier one; {lost} (2 × run.checkpoint_every)"
        )

    def _describe_interval(self) -> list[str]:
        if self.step_seconds is None or self.seconds_between_saves is None:
            return []
        between = f"{self.checkpoint_every:,} steps between saves take {_seconds(self.seconds_between_saves)}"
        if not self.stalls_loop:
            return [between]
        least = math.ceil(self.seconds / self.step_seconds)
        return [
            f"{between}, less than a save, so the loop stalls: set run.checkpoint_every to {least:,} or more"
        ]


def state_bytes(state: object) -> int:
    """Returns the bytes of the arrays of a state, which may be abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def measure_bandwidth(path: PathLike) -> Bandwidth:
    """Writes 128 MiB where checkpoints will lie, removes them, and returns the bandwidth.

    To a bucket it is that of one stream; Orbax writes several at once, which can be faster.

    Args:
        path: File or URL that does not exist yet.

    Raises:
        BandwidthError: The file exists, or cannot be written.
    """
    file, block = as_path(path), os.urandom(_BLOCK)
    try:
        if file.exists():
            raise BandwidthError(f"--measure-save {path} exists; name a file that does not exist yet")
        with _removed_in_the_end(file):
            began = time.perf_counter()
            with file.open("wb") as stream:
                for _ in range(_MEASURED):
                    stream.write(block)
                if "://" not in str(file):
                    stream.flush()
                    os.fsync(stream.fileno())
            seconds = time.perf_counter() - began
    except BandwidthError:
        raise
    except Exception as error:  # Object storage has errors of its own.
        reason = getattr(error, "strerror", None) or innermost_cause(error)
        raise BandwidthError(
            f"--measure-save {path} cannot be written: {reason}; name a file in a folder or bucket that can"
        ) from error
    return Bandwidth(_MEASURED * _BLOCK / seconds, "measured")


@contextlib.contextmanager
def _removed_in_the_end(file: epath.Path) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"
