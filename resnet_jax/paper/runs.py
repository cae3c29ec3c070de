"""The runs that a table or a figure is made from: their recipes, where they are kept, and how the missing ones are trained."""

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from resnet_jax.data.datasets import open_encoded
from resnet_jax.paper.reported import CIFAR10, DIGITS
from resnet_jax.training.checkpoints import steps_in
from resnet_jax.training.config import Config, mutable_copy, resolve
from resnet_jax.training.logging import Record, read_metrics
from resnet_jax.training.recipes import load_recipe
from resnet_jax.training.run import DivergedError, run

DIGITS_STEPS = 400
"""Iterations on the digits at budget 1: 36 epochs."""

EVALUATIONS, CHECKPOINTS, RECORDS = 20, 8, 200
"""Of a run, at least so many, where it is long enough."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where runs and data are.

    Attributes:
        workdir: Below which every run has its own.
        data_dir: Of TFDS; empty is the default.
        source: Of ImageNet: a folder, a prepared set or a TFDS set; empty is the recipe's.
    """

    workdir: Path
    data_dir: str = ""
    source: str = ""


@dataclasses.dataclass(frozen=True)
class PaperRun:
    """A net trained on a data set with a seed.

    Attributes:
        net: Argument of the recipe: "resnet56", "resnet34,A".
        seed: Of the run.
        config: Its recipe.
        full_steps: Iterations at budget 1.
        workdir: Its own.
    """

    net: str
    seed: int
    config: Config
    full_steps: int
    workdir: Path

    def __hash__(self) -> int:
        return hash(self.workdir)

    @property
    def finished(self) -> bool:
        """Whether it is trained and evaluated to the end."""
        return (steps_in(self.workdir) or [0])[-1] >= self.config.run.steps and "test_top1" in self.records[
            -1
        ]

    @property
    def records(self) -> list[Record]:
        """What it has written down so far."""
        return read_metrics(self.workdir)


def plan_run(net: str, *, data: str, family: str, seed: int, budget: float, place: Place) -> PaperRun:
    """Returns a run of a net.

    Args:
        net: Argument of the recipe of the family.
        data: "imagenet", "cifar10" or "digits".
        family: The paper's data set, whose nets these are.
        seed: Of the run.
        budget: Share of the iterations; the steps at which the rate falls are scaled with them.
        place: Where runs and data are.
    """
    config = mutable_copy(load_recipe(f"{family}:{net}"))
    if data == DIGITS:
        config = _miniature(config)
    config.seed = seed
    config.run.data_dir = place.data_dir
    if place.source and data == family != CIFAR10:
        config.data.source = place.source
    full = config.run.steps
    _scale(config, budget)
    name = f"{net.replace(',', '_')}_{config.run.steps}_seed{seed}"
    return PaperRun(net, seed, resolve(config), full, place.workdir / data / name)


def data_sizes(config: Config) -> tuple[int, int]:
    """Returns the numbers of training and test images.

    Raises:
        DataError: The data is not at hand; the message says what to prepare.
    """
    splits = config.data.train_split, config.data.test_split
    train, test = (
        len(open_encoded(str(config.data.source), split, data_dir=config.run.data_dir)) for split in splits
    )
    return train, test


def train_missing(runs: Sequence[PaperRun], console: Console) -> dict[PaperRun, str]:
    """Trains the runs that are not finished, goes on with those that were stopped, and returns why some diverged.

    Every run is an ordinary one, as of `python train.py`, in a workdir of its own: it can be killed at any time.

    Raises:
        Interrupted: SIGTERM or Ctrl-C came; the state is saved.
        DataError, DeviceError, WorkdirError: A run cannot be made.
    """
    diverged = {}
    with _progress(console, runs) as (begin, inner):
        for each in runs:
            begin(each)
            if each.finished:
                continue
            try:
                run(each.config, each.workdir, console=inner)
            except DivergedError as error:
                diverged[each] = str(error)
    return diverged


def _miniature(recipe: Config) -> Config:
    """Returns the recipe of the digits, with the net and the warm-up of another."""
    config = mutable_copy(load_recipe("digits_resnet20"))
    config.model.name, config.model.shortcut = recipe.model.name, recipe.model.shortcut
    for name in ("warmup_until_error", "warmup_rate"):
        config.optimizer[name] = recipe.optimizer[name]
    config.optimizer.boundaries = (DIGITS_STEPS // 2, DIGITS_STEPS * 3 // 4)
    config.run.steps, config.run.remat = DIGITS_STEPS, recipe.run.remat
    if not config.run.remat:
        config.run.scan = "no"  # Faster from some hundred steps on.
    config.run.evaluate_every = config.run.checkpoint_every = DIGITS_STEPS
    return config


def _scale(config: Config, budget: float) -> None:
    options, optimizer = config.run, config.optimizer
    options.steps = max(1, round(budget * options.steps))
    optimizer.boundaries = tuple(sorted({max(1, round(budget * step)) for step in optimizer.boundaries}))
    optimizer.plateau_window = max(1, round(budget * optimizer.plateau_window))
    for name, count in (
        ("evaluate_every", EVALUATIONS),
        ("checkpoint_every", CHECKPOINTS),
        ("log_every", RECORDS),
    ):
        setattr(options, name, min(getattr(options, name), max(1, options.steps // count)))


@contextlib.contextmanager
def _progress(console: Console, runs: Sequence[PaperRun]) -> Iterator[tuple[Any, Console]]:
    """Shows a bar over runs and what the present one says: yields what to call when one begins, and the console for runs."""
    if not console.is_terminal:

        def announce(each: PaperRun) -> None:
            state = "is finished" if each.finished else "begins or goes on"
            console.print(
                f"run {runs.index(each) + 1} of {len(runs)}: {each.workdir} {state}",
                highlight=False,
                soft_wrap=True,
            )

        yield announce, console
        return
    text = TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    columns = (MofNCompleteColumn(), BarColumn(20), TimeElapsedColumn(), text)
    with Progress(*columns, console=console, expand=True) as progress:
        task = progress.add_task("", total=len(runs), text="")

        def begin(each: PaperRun) -> None:
            lines.name = each.workdir.name
            progress.update(task, completed=runs.index(each), text=lines.name)

        lines = _LastLine(progress, task)
        yield begin, Console(file=lines, width=200)
        progress.update(task, completed=len(runs), text="done")


class _LastLine(io.StringIO):
    """A file whose last line is the text of a progress bar, after a name."""

    def __init__(self, progress: Progress, task: Any) -> None:
        super().__init__()
        self.name = ""
        self._progress, self._task = progress, task

    def write(self, text: str, /) -> int:
        if text.strip():
            self._progress.update(
                self._task, text=f"{self.name}: {text.strip().splitlines()[-1]}", refresh=True
            )
        return len(text)
