"""What commands print: tables, JSON, notes, and one progress bar; rich is imported when it draws."""

import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn
    from rich.table import Column


def print_json(value: object) -> None:
    """Prints one JSON value on one line: what a command answers with `--json`."""
    print(json.dumps(value))


def print_note(text: str) -> None:
    """Prints a line on standard error that says something beside the result of a command."""
    print(f"resnet-jax: {text}", file=sys.stderr)


def print_line(console: "Console", text: str) -> None:
    """Prints a line as it is: brackets are no markup, numbers are not colored, long lines are not broken."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def format_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    footer: Sequence[str] = (),
    caption: str = "",
    text_columns: int = 1,
) -> str:
    """Returns a table as lines of text, columns as wide as their widest cell.

    Args:
        header: Name of each column.
        rows: Cells of each row, one for each column.
        title: Line above the table.
        footer: Cells of a last row, for sums.
        caption: Line below the table.
        text_columns: Number of columns at the left that hold text and are aligned left; the others hold
            numbers.
    """
    lines = [header, *rows, *([footer] if footer else [])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [title] if title else []
    for line in lines:
        cells = [
            cell.ljust(width) if number < text_columns else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join([*text, *([caption] if caption else [])])


def format_duration(seconds: float) -> str:
    """Returns a time in its two largest units: 0.4 s, 12 s, 3 min 05 s, 1 h 02 min, 2 d 03 h."""
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


class ProgressBar:
    """A progress bar that disappears at the end; if the console is no terminal, only `say` prints.

    Args:
        name: What is counted, shown before the bar.
        total: Count at the end; None while it is not known.
        completed: Count at the beginning.
        console: Console that shows the bar. Defaults to standard error.

    Example:
        >>> with ProgressBar("images", total=len(files)) as bar:
        ...     for file in files:
        ...         convert(file)
        ...         bar.advance()
    """

    def __init__(
        self, name: str, total: int | None = None, *, completed: int = 0, console: "Console | None" = None
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        self._console = console or Console(stderr=True)
        rest_of_line = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self._progress = Progress(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(20),
            _text_with_seconds(rest_of_line),
            TimeRemainingColumn(),
            console=self._console,
            expand=True,
            transient=True,
            disable=not self._console.is_terminal or self._console.quiet,
        )
        self._task = self._progress.add_task(name, total=total, completed=completed, text="", since=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, completed: int, total: int | None = None) -> None:
        """Sets the count, and the count at the end if it is now known."""
        self._progress.update(self._task, completed=completed, total=total)

    def advance(self, count: int = 1) -> None:
        """Adds to the count."""
        self._progress.advance(self._task, count)

    def show(self, text: str) -> None:
        """Shows a text beside the bar, in place of the one before."""
        self._progress.update(self._task, text=text, since=None)

    def show_phase(self, text: str) -> None:
        """Shows a text beside the bar with the seconds that pass, until another text is shown."""
        self._progress.update(self._task, text=text, since=time.monotonic())

    def say(self, text: str) -> None:
        """Prints a line that stays, above the bar."""
        print_line(self._console, text)

    def inner_console(self, prefix: Callable[[], str] = str) -> "Console":
        """Returns a console whose newest line becomes the text beside the bar, for work inside the bar.

        Args:
            prefix: Returns what is put before the line.
        """
        from rich.console import Console

        return Console(file=_LastLine(lambda line: self.show(prefix() + line)), width=200)


def _text_with_seconds(column: "Column") -> "ProgressColumn":
    """Returns the column of the text; behind that of a phase come the seconds since it began."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class TextWithSeconds(ProgressColumn):
        def render(self, task: Task) -> Text:
            since = task.fields["since"]
            seconds = "" if since is None else f" {time.monotonic() - since:.0f} s"
            return Text(task.fields["text"] + seconds, no_wrap=True, overflow="ellipsis")

    return TextWithSeconds(table_column=column)


class _LastLine(io.StringIO):
    """A file object that passes on the last line written to it, and stores nothing."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def write(self, text: str, /) -> int:
        if text.strip():
            self._show(text.strip().splitlines()[-1])
        return len(text)
