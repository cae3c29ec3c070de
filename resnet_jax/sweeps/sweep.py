"""Runs of a sweep: which are missing, and training these, one by one or several seeds in one program."""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import groupby

import jax
from etils import epath
from rich.console import Console

from resnet_jax.console import ProgressBar
from resnet_jax.training.checkpoints import steps_in
from resnet_jax.training.config import Config, recipe_differences
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.logging import Record, read_metrics
from resnet_jax.training.loop import DivergedError, Interrupted
from resnet_jax.training.network import prepare_jax
from resnet_jax.training.run import run
from resnet_jax.training.vmapped_seeds import LARGEST_SEED, run_vmapped_seeds, seconds_per_step
from resnet_jax.training.workdir import WorkdirError, read_config

VMAP = ("auto", "yes", "no")


@dataclasses.dataclass(frozen=True, eq=False)
class SweepRun:
    """One seed of one recipe.

    Attributes:
        name: Name of the recipe within the sweep, the same for all its seeds.
        config: Recipe with the seed, resolved.
        workdir: Directory of this run alone.
    """

    name: str
    config: Config
    workdir: epath.Path

    @property
    def step(self) -> int:
        """Step of the newest checkpoint; 0 where there is none."""
        return (steps_in(self.workdir) or [0])[-1]

    @property
    def finished(self) -> bool:
        """Whether the run is trained to the end."""
        return self.step >= self.config.run.steps

    @property
    def records(self) -> list[Record]:
        """Records that the run has written so far."""
        return read_metrics(self.workdir)

    def check(self, advice: str) -> None:
        """Raises WorkdirError with advice if the workdir holds a run of another recipe, or a longer one."""
        if not self.step:
            return
        differences = recipe_differences(read_config(self.workdir), self.config)
        if self.step > self.config.run.steps:
            differences.append(f"step {self.step}, which is beyond run.steps {self.config.run.steps}")
        if differences:
            reasons = "; ".join(differences)
            raise WorkdirError(f"{self.workdir} holds another run than {self}: {reasons}; {advice}")

    def __str__(self) -> str:
        return f"{self.name}, seed {self.config.seed}"


def check_seeds(seeds: int) -> None:
    """Raises ConfigError unless the number of seeds is above 0."""
    if seeds < 1:
        raise ConfigError(f"--seeds is {seeds}; it must be a number above 0")


def train_missing(
    runs: Sequence[SweepRun], console: Console | None = None, *, advice: str, vmap: str = "no"
) -> dict[SweepRun, str]:
    """Trains the runs that are not finished, resumes those that were stopped, and returns why some diverged.

    Every run is an ordinary one in a workdir of its own, as of `resnet-jax train`: it can be killed at any
    time.

    Args:
        runs: Runs of the sweep; the seeds of a recipe follow one another.
        console: Console that shows progress. Defaults to standard error.
        advice: What to do about a workdir that holds another run; the end of the error.
        vmap: Whether the seeds of a recipe are trained together in one program: "yes", "no", or "auto", where
            that is faster.

    Raises:
        WorkdirError: A workdir holds another run; nothing is trained.
        ConfigError, ModelError, DataError, DeviceError: A run cannot be trained.
        Interrupted: SIGTERM or Ctrl-C came; the same call resumes.
    """
    if vmap not in VMAP:
        raise ConfigError(f"--vmap is {vmap!r}; allowed are {', '.join(VMAP)}")
    for each in runs:
        each.check(advice)
    missing = [each for each in runs if not each.finished]
    done, diverged = len(runs) - len(missing), {}
    with ProgressBar("runs", len(runs), completed=done, console=console) as bar:
        if done:
            bar.say(f"{done} of {len(runs)} runs are finished already")
        for group in _groups(missing, vmap):
            for each, reason in _train(group, bar):
                done += 1
                bar.update(done)
                bar.say(f"{done} of {len(runs)}: {each}, {f'diverged: {reason}' if reason else 'done'}")
                if reason:
                    diverged[each] = reason
    return diverged


def _groups(missing: Sequence[SweepRun], vmap: str) -> Iterator[list[SweepRun]]:
    """Yields runs that are trained together: the seeds of a recipe that stand at one step, or single runs."""
    for _, alike in groupby(missing, key=lambda each: (each.name, each.step)):
        group = list(alike)
        if len(group) > 1 and group[-1].config.seed <= LARGEST_SEED and _faster_together(group, vmap):
            yield group
        else:
            yield from ([each] for each in group)


def _faster_together(group: Sequence[SweepRun], vmap: str) -> bool:
    """Returns whether to train these seeds in one program: on CPU it is slower, elsewhere both are timed."""
    if vmap != "auto":
        return vmap == "yes"
    config = group[0].config
    prepare_jax(config)
    # `benchmarks/vmapped_seeds.py`: a convolution with as many kernels as seeds is slow on CPU.
    if jax.default_backend() == "cpu":
        return False
    taken = seconds_per_step(config, [each.config.seed for each in group])
    return taken["together"] < taken["separate"]


def _train(group: Sequence[SweepRun], bar: ProgressBar) -> Iterator[tuple[SweepRun, str]]:
    """Trains a group to its end, and yields each run with the reason why it diverged, "" if it did not."""
    together = f" to {group[-1].config.seed} together" if len(group) > 1 else ""
    title = f"{group[0]}{together}"
    bar.show(title)
    console = bar.inner_console(lambda: f"{title}: ")
    try:
        if together:
            run_vmapped_seeds([each.config for each in group], [each.workdir for each in group], console)
        else:
            run(group[0].config, group[0].workdir, console)
    except DivergedError as error:
        if not together:
            yield group[0], str(error)
        else:  # The seeds that do not diverge end well alone.
            for each in group:
                yield from _train([each], bar)
    except KeyboardInterrupt:
        again = "run the same command again: it resumes from the last checkpoint"
        raise Interrupted(f"stopped in {group[0]}; {again}") from None
    else:
        yield from ((each, "") for each in group)
