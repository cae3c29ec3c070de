"""What the person sees while a run goes: a progress line on a terminal, plain lines elsewhere."""

import time
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from resnet_jax.training.logging import Record

SECONDS_BETWEEN_LINES = 5.0


class Reporter(Protocol):
    """Shows a run to a person; a context manager around the loop."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def say(self, text: str) -> None:
        """Shows a line that stays."""

    def step(self, record: Record) -> None:
        """Shows the newest step."""


def create_reporter(console: Console, *, start: int, steps: int) -> Reporter:
    """Returns a progress line where the console is a terminal, plain lines where it is a file or a pipe."""
    return (
        TerminalReporter(console, start, steps)
        if console.is_terminal and not console.quiet
        else LineReporter(console, steps)
    )


class TerminalReporter:
    """One line that is drawn again and again: bar, step, loss, accuracy, images/s, remaining time."""

    def __init__(self, console: Console, start: int, steps: int) -> None:
        self._console = console
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, expand=True)
        self._task = self._progress.add_task("", total=steps, completed=start, text="compiling …")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def step(self, record: Record) -> None:
        self._progress.update(self._task, completed=record["step"], text=_describe(record))
        if "test_top1" in record:
            self.say(_line(record, int(self._progress.tasks[0].total or 0)))


class LineReporter:
    """A line every few seconds, and one for every evaluation."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps = console, steps
        self._shown = time.monotonic()
        self._first: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, record: Record) -> None:
        now = time.monotonic()
        began, first = self._first = self._first or (now, record["step"])
        if "test_top1" not in record and now - self._shown < SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        steps = record["step"] - first  # Since the first, which was compiled.
        remaining = f", {(now - began) / steps * (self._steps - record['step']):.0f} s left" if steps else ""
        self.say(_line(record, self._steps) + remaining)


def _line(record: Record, steps: int) -> str:
    return f"step {record['step']}/{steps}: {_describe(record)}"


def _describe(record: Record) -> str:
    text = f"loss {record['loss']:.4f}, train {record['top1']:.1%}"
    if "test_top1" in record:
        text += f", test {record['test_top1']:.2%}"
    return (
        f"{text}, {record['images_per_second']:,.0f} images/s, {record['input_share']:.0%} waiting for input"
    )
