"""A stopwatch that divides the time of a process into parts; see `resnet_jax.training.wall_time`."""

import contextlib
import time
from collections.abc import Iterator

STEP_PARTS = ("computing", "input", "evaluation", "saving")
PARTS = (*STEP_PARTS, "restoring", "starting", "lost", "down")
"""Parts of the wall time.

`computing` is what remains of the loop's time after waiting for `input`, `evaluation`, and the wait for
`saving`. `restoring` reads a checkpoint. `starting` is the rest of the time before the first step is
dispatched: imports, data and compilation. `lost` is the time of steps that were made again, in any of the
first four parts. `down` is the time between the last that is known of a process and the next start.
"""


class Stopwatch:
    """Divides the time of this process into parts. Until the first step it is `starting`.

    Attributes:
        started: Seconds since the epoch at which it was made.
        seconds: Seconds of each part, up to the last change of part or call of `update`.
    """

    def __init__(self) -> None:
        self.started = time.time()
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._then = "starting", time.perf_counter()

    def update(self) -> None:
        """Adds the time that passed to the current part."""
        now = time.perf_counter()
        self.seconds[self._part] += now - self._then
        self._then = now

    def enter(self, part: str) -> None:
        """Ends the current part and begins another."""
        self.update()
        self._part = part

    @contextlib.contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Counts the time of the block as a part, and returns to the part before."""
        before = self._part
        self.enter(part)
        try:
            yield
        finally:
            self.enter(before)
