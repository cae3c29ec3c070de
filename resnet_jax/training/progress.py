"""What the person sees while a run goes: a progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable

from rich.console import Console

from resnet_jax.console import ProgressBar, print_line
from resnet_jax.training.logging import Record

SECONDS_BETWEEN_LINES = 5.0
LEAST_SHARE = 0.01
"""Share of the time spent waiting for input from which on the line shows it."""


class Reporter:
    """Shows the steps of a run; `bar` is a context manager around the loop.

    On a terminal it draws one progress bar, and a line that stays for every evaluation. In a file or a pipe
    it writes such a line, and one every few seconds with the remaining time.

    Args:
        console: Console that shows them.
        line: Text of a record, without speed.
        start: Step that the run continues from.
        steps: Total number of steps.
    """

    def __init__(self, console: Console, line: Callable[[Record], str], *, start: int, steps: int) -> None:
        self._console, self._line, self._steps = console, line, steps
        self.bar = ProgressBar("step", steps, completed=start, console=console)
        self.bar.show_phase("starting …")
        self._shown = time.monotonic()
        self._first: tuple[float, float] | None = None

    def phase(self, text: str) -> None:
        """Shows what is under way before the first step, with the seconds that it takes."""
        self.bar.show_phase(text)
        if not self._console.is_terminal:
            print_line(self._console, text)

    def step(self, record: Record) -> None:
        """Shows the newest step."""
        text = f"{self._line(record)}, {record['images_per_second']:,.0f} images/s"
        if record["input_share"] >= LEAST_SHARE:
            text += f", {record['input_share']:.0%} waiting for input"
        now, tested = time.monotonic(), any(name.startswith("test_") for name in record)
        began, first = self._first = self._first or (now, record["step"])
        line = f"step {record['step']}/{self._steps}: {text}"
        if self._console.is_terminal:
            self.bar.update(int(record["step"]))
            self.bar.show(text)
            if tested:
                self.bar.say(line)
        elif tested or now - self._shown >= SECONDS_BETWEEN_LINES:
            self._shown = now
            steps = record["step"] - first  # Since the first, which was compiled.
            left = f", {(now - began) / steps * (self._steps - record['step']):.0f} s left" if steps else ""
            print_line(self._console, line + left)
