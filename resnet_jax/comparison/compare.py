"""Trains what is missing of a comparison, one run after the other, or the seeds of a config together; what is finished stays."""

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import jax
from etils import epath
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from resnet_jax.comparison.entries import Entry, check_comparable
from resnet_jax.comparison.results import Comparison, Net, collect, measure_net
from resnet_jax.training.checkpoints import steps_in
from resnet_jax.training.config import Config, recipe_differences
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.experiment import build_experiment, prepare_jax
from resnet_jax.training.run import DivergedError, Interrupted, run
from resnet_jax.training.together import LARGEST_SEED, run_together, seconds_per_step
from resnet_jax.training.workdir import CONFIG, WorkdirError, read_config

VMAP = ("auto", "yes", "no")


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of one config, and where it is kept."""

    entry: Entry
    config: Config
    workdir: epath.Path

    @property
    def step(self) -> int:
        """Of the newest checkpoint; 0 where there is none."""
        return (steps_in(self.workdir) or [0])[-1]

    @property
    def finished(self) -> bool:
        return self.step >= self.config.run.steps

    def check(self) -> None:
        """Raises WorkdirError where the workdir holds a run of another recipe, or a longer one."""
        if not (self.workdir / CONFIG).exists():
            return
        differences = recipe_differences(read_config(self.workdir), self.config)
        if self.step > self.config.run.steps:
            differences.append(f"step {self.step}, which is beyond run.steps {self.config.run.steps}")
        if differences:
            raise WorkdirError(
                f"{self.workdir} holds another run than {self}: {'; '.join(differences)}; give the config another name "
                "(NAME=CONFIG), or choose another --to"
            )

    def __str__(self) -> str:
        return f"{self.entry.name}, seed {self.config.seed}"


def compare(
    entries: Sequence[Entry],
    directory: epath.PathLike,
    *,
    seeds: int,
    vmap: str = "auto",
    any_data: bool = False,
    console: Console | None = None,
) -> Comparison:
    """Trains every config with every seed that is not trained yet, and returns what came out.

    Every run has an ordinary workdir, `<directory>/<name>/seed<S>`. Finished runs are not repeated; one that was cut off goes on.

    Args:
        entries: The configs; see `parse_entry`.
        directory: Of the comparison.
        seeds: Their number; the first is that of the config.
        vmap: Whether the seeds of a config are trained together in one program: "yes", "no", or "auto", where that is faster.
        any_data: Compare also what is trained on different data.
        console: Shows the progress; the standard error by default.

    Raises:
        ConfigError, ModelError, DataError, WorkdirError, DeviceError: Of any of the runs, before the first begins.
        Interrupted: Ctrl-C or SIGTERM came; the same call goes on.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds is {seeds}; it must be 1 or more")
    if vmap not in VMAP:
        raise ConfigError(f"--vmap is {vmap!r}; allowed are {', '.join(VMAP)}")
    check_comparable(entries, any_data=any_data)
    folder = epath.Path(directory)
    runs = [
        Run(entry, config, folder / entry.directory / f"seed{config.seed}")
        for entry in entries
        for config in map(entry.with_seed, range(seeds))
    ]
    for one in runs:
        one.check()
    nets = {entry.name: _check(entry) for entry in entries}
    diverged: dict[str, str] = {}
    with _Status(console or Console(stderr=True), runs) as status:
        for group in _groups([one for one in runs if not one.finished], vmap):
            diverged |= _train(group, status)
    found = [(one.entry, one.config.seed, one.workdir) for one in runs if str(one) not in diverged]
    return collect(entries, nets, found, seeds=seeds, diverged=diverged)


def _check(entry: Entry) -> Net:
    """Opens the data and makes the net of a config, so that a mistake in the last is known before the first is trained."""
    prepare_jax(entry.config)
    experiment = build_experiment(entry.config)
    return measure_net(experiment.model, experiment.train.image_shape)


def _groups(missing: Sequence[Run], vmap: str) -> Iterator[list[Run]]:
    """Yields the runs that are trained together: the seeds of a config that stand at one step, or single ones."""
    for _, of_entry in groupby(missing, key=lambda one: (one.entry.name, one.step)):
        group = list(of_entry)
        if len(group) > 1 and group[-1].config.seed <= LARGEST_SEED and _together(group, vmap):
            yield group
        else:
            yield from ([one] for one in group)


def _together(group: Sequence[Run], vmap: str) -> bool:
    """Returns whether to train these seeds in one program: on CPU it is slower, elsewhere both are tried."""
    if vmap != "auto":
        return vmap == "yes"
    config = group[0].config
    prepare_jax(config)
    if (
        jax.default_backend() == "cpu"
    ):  # `benchmarks/vmapped_seeds.py`: a convolution with as many kernels as seeds is slow there.
        return False
    taken = seconds_per_step(config, [one.config.seed for one in group])
    return taken["together"] < taken["separate"]


def _train(group: Sequence[Run], status: "_Status") -> dict[str, str]:
    """Trains the runs of a group to their end, and returns those that diverged, with the reason."""
    status.begin(group)
    try:
        if len(group) > 1:
            run_together([one.config for one in group], [one.workdir for one in group], status.console)
        else:
            run(group[0].config, group[0].workdir, status.console)
    except DivergedError as error:
        if len(group) > 1:  # The others can go on without it.
            return {name: reason for one in group for name, reason in _train([one], status).items()}
        status.end(group, f"diverged: {error}")
        return {str(group[0]): str(error)}
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped in {group[0]}; run the same command again: it goes on from the last checkpoint"
        ) from None
    status.end(group, "done")
    return {}


class _Status:
    """A bar over the runs with the newest line of the one that goes, on a terminal; a line for every run elsewhere."""

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        self._console = console
        columns = (
            TextColumn("runs"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        finished = sum(one.finished for one in runs)
        self._task = self._bar.add_task("", total=len(runs), completed=finished, text="")
        self._of, self._number, self._title = len(runs), finished, ""
        self.console = Console(file=_LastLine(self._show), width=200)
        if finished:
            self._say(f"{finished} of {len(runs)} runs are finished already")

    def __enter__(self) -> "_Status":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def begin(self, group: Sequence[Run]) -> None:
        more = f" to {group[-1].config.seed} together" if len(group) > 1 else ""
        self._title = f"{group[0]}{more}"
        self._show("")

    def end(self, group: Sequence[Run], how: str) -> None:
        self._number += len(group)
        self._bar.update(self._task, completed=self._number)
        self._say(f"{self._number} of {self._of}: {self._title}, {how}")

    def _show(self, line: str) -> None:
        self._bar.update(self._task, text=f"{self._title}: {line}" if line else self._title)

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class _LastLine(io.StringIO):
    """A file that hands on the last line written to it, and keeps nothing."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._handed = show

    def write(self, text: str) -> int:
        lines = [line for line in text.splitlines() if line.strip()]
        if lines:
            self._handed(lines[-1].strip())
        return len(text)
