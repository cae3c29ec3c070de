"""A run from its beginning to its end: resume, train, evaluate, save."""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext

import jax
from etils import epath
from jaxtyping import Array
from rich.console import Console

from resnet_jax.console import print_line
from resnet_jax.data.batches import HostBatch
from resnet_jax.files import as_path
from resnet_jax.parallel import Processes
from resnet_jax.training.checkpoints import Checkpoint, from_arrays, steps_in
from resnet_jax.training.config import Config, resolve, with_fields
from resnet_jax.training.device_layout import LayoutChoice, choose_layout, describe_choice
from resnet_jax.training.identity import of_command, of_machine
from resnet_jax.training.logging import Clock, Record, is_logged, read_metrics, test_fields
from resnet_jax.training.loop import train_steps
from resnet_jax.training.network import prepare_jax
from resnet_jax.training.phases import train_initial
from resnet_jax.training.plots import draw_run_curves
from resnet_jax.training.profile import profiled
from resnet_jax.training.progress import Reporter
from resnet_jax.training.resuming import find_checkpoint
from resnet_jax.training.run_files import RunFiles, check_finite, store_run
from resnet_jax.training.state import TrainState
from resnet_jax.training.stopwatch import Stopwatch
from resnet_jax.training.task import Display, Experiment, build_experiment
from resnet_jax.training.wall_time import describe_wall_time, read_wall_time
from resnet_jax.training.workdir import CURVES, METRICS, occupy, store_config


def run(
    config: Config,
    workdir: epath.PathLike,
    console: Console | None = None,
    processes: Processes | None = None,
    stopwatch: Stopwatch | None = None,
) -> Record:
    """Trains from where the workdir stands to `config.run.steps`, and returns the last record.

    Args:
        config: Recipe to train.
        workdir: Directory of the run; the same for all its processes.
        console: Console that shows progress. Defaults to the standard output of the first process.
        processes: Processes that train together, joined. Defaults to this one alone.
        stopwatch: Measures the time of this process. Defaults to one that begins now.

    Raises:
        UsageError: What was asked for cannot be done: a field, a device, a model, the data, the workdir, a
            checkpoint.
        DivergedError: The loss or the gradient is not finite.
        Interrupted: SIGTERM or Ctrl-C came, and the state is saved.
    """
    processes, stopwatch = processes or Processes(), stopwatch or Stopwatch()
    console = console or Console(quiet=not processes.first)
    config = resolve(config)
    processes.agree("recipe and versions", of_command(config))
    prepare_jax(config, processes=processes.count)
    with occupy(workdir) if processes.first else nullcontext(as_path(workdir)) as path:
        processes.agree("workdir", {})  # The first has it: the others may look into it.
        saved = steps_in(path)
        processes.agree("machines and workdir", of_machine(saved))
        complete = bool(saved) and saved[-1] >= config.run.steps
        with stopwatch.measure("restoring"):
            checkpoint = None if complete else find_checkpoint(path, processes, fallback=config.run.fallback)
        choice = choose_layout(config, path if saved else None)
        processes.agree("accumulation", {"accumulation": choice.accumulation})
        laid = with_fields(config, {"run.accumulation": choice.accumulation})
        if config.initial.from_recipe and not saved:
            if processes.first:
                store_config(path, config)  # So that the workdir is known for one if this is killed.
            laid = train_initial(laid, path, console, processes=processes.count, run=run)
            stopwatch = Stopwatch()  # The time of that run is in its own records.
        experiment = build_experiment(laid, begun=path if saved else None)
        processes.agree("data", experiment.described)
        if processes.first:
            store_run(path, config, experiment)
        if not complete:
            _train(config, experiment, path, console, processes, checkpoint, choice, stopwatch)
        elif processes.first:
            _say_complete(console, experiment.display, path, saved[-1])
        return read_metrics(path)[-1]


def _train(
    config: Config,
    experiment: Experiment,
    workdir: epath.Path,
    console: Console,
    processes: Processes,
    checkpoint: Checkpoint | None,
    choice: LayoutChoice,
    stopwatch: Stopwatch,
) -> None:
    start, options = checkpoint.step if checkpoint else 0, config.run
    layout = choice.layout(config, len(experiment.mapping.devices))
    print_line(console, _opening(config, experiment, workdir, start, processes.count, layout.accumulation))
    if processes.first and (line := describe_choice(choice, layout, config, experiment)):
        print_line(console, line)
    for note in () if start else experiment.display.notes:
        print_line(console, note)
    with ExitStack() as stack:
        stop = stack.enter_context(processes.stop_signals(start))
        files = RunFiles(workdir, config, experiment, start, stopwatch, layout=layout, first=processes.first)
        stack.callback(files.close)
        reporter = Reporter(console, experiment.display.line, start=start, steps=options.steps)
        stack.enter_context(reporter.bar)
        reporter.phase("initializing …")
        state = experiment.initial_state()
        if checkpoint:
            with stopwatch.measure("restoring"):
                state = from_arrays(state, checkpoint.arrays)
        reporter.phase("compiling the training step …")
        profile = stack.enter_context(profiled(options.profile, workdir))
        trainer = RunTrainer(
            config, experiment, experiment.mapping.replicate(state), files, reporter, profile
        )
        train_steps(
            trainer,
            experiment.train_batches,
            start=start,
            options=options,
            images=config.batch_size,
            stop=stop,
            stopwatch=stopwatch,
        )
    if processes.first:
        draw_run_curves(workdir, experiment.display)
        _say_summary(console, experiment.display, workdir)
    processes.agree("end", {})


class RunTrainer:
    """One run, as the loop trains it; see `resnet_jax.training.loop.Trainer`.

    Args:
        config: The resolved config.
        experiment: What it describes.
        state: The state on the devices.
        files: What the run writes.
        reporter: What the person sees.
        profile: Is called before every step; see `resnet_jax.training.profile`.
    """

    def __init__(
        self,
        config: Config,
        experiment: Experiment,
        state: TrainState,
        files: RunFiles,
        reporter: Reporter,
        profile: Callable[[int, TrainState], None],
    ) -> None:
        self._options, self._experiment, self._state = config.run, experiment, state
        self._files, self._reporter, self._profile = files, reporter, profile

    def step(self, number: int, batch: HostBatch) -> dict[str, Array]:
        self._profile(number, self._state)
        placed = self._experiment.mapping.shard(batch)
        self._state, metrics = self._experiment.train_step(self._state, placed)
        return metrics

    def report(
        self, number: int, metrics: dict[str, Array], tested: dict[str, float] | None, clock: Clock
    ) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        check_finite(number, values)
        record = {"step": number, **values, **test_fields(tested or {}), **clock.tick(number)}
        self._reporter.step(record)
        if is_logged(number, tested, self._options):
            self._files.write(record)

    def settle(self) -> None:
        jax.block_until_ready(self._state)

    def evaluate(self) -> dict[str, float]:
        return self._experiment.test(self._state)

    def save(self, number: int, tested: dict[str, float] | None) -> None:
        self._files.save(number, self._state, tested)

    def wait(self) -> None:
        self._files.wait()


def _opening(
    config: Config, experiment: Experiment, workdir: epath.Path, start: int, processes: int, parts: int
) -> str:
    devices, display = experiment.mapping.devices, experiment.display
    where = f"{len(devices)} {devices[0].platform} device{'s' if len(devices) > 1 else ''}"
    where += f" of {processes} processes" if processes > 1 else ""
    where += f", batches in {parts} parts" if parts > 1 else ""
    begin = f"resumes from step {start} of {config.run.steps}" if start else f"{config.run.steps} steps"
    return f"{display.title} ({display.data}), {where}, batch {config.batch_size}: {begin}, into {workdir}"


def _say_summary(console: Console, display: Display, workdir: epath.Path) -> None:
    kept, records = steps_in(workdir), read_metrics(workdir)
    wall_time = read_wall_time(workdir, records)
    tested = [record for record in records if f"test_{display.score}" in record]
    tested = [record for record in tested if record["step"] in kept] or tested[-1:]
    lines = [
        f"done: {display.summary(tested)}",
        *([f"wall time:   {describe_wall_time(wall_time)}"] if wall_time else []),
        f"curves:      {workdir / CURVES}",
        f"records:     {workdir / METRICS}",
        f"checkpoints: {', '.join(map(str, kept))} in {workdir / 'checkpoints'}",
        f"evaluate:    resnet-jax evaluate --workdir {workdir}",
    ]
    print_line(console, "\n".join(lines))


def _say_complete(console: Console, display: Display, workdir: epath.Path, step: int) -> None:
    if not (workdir / CURVES).exists():
        draw_run_curves(workdir, display)
    _say_summary(console, display, workdir)
    print_line(
        console,
        f"this run was complete at step {step} already; to train longer raise --config.run.steps; to "
        "train from scratch choose another --workdir",
    )
