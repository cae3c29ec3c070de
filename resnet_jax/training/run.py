"""A run from its beginning to its end: resume, train, evaluate, save."""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial

import jax
import numpy as np
from etils import epath
from rich.console import Console

from resnet_jax.data.batches import read_ahead
from resnet_jax.errors import RESUMABLE, ResNetError
from resnet_jax.parallel import Processes
from resnet_jax.training.checkpoints import Checkpoint, CheckpointWriter, from_arrays, steps_in
from resnet_jax.training.config import Config, resolve, to_json
from resnet_jax.training.experiment import Experiment, build_experiment, prepare_jax
from resnet_jax.training.identity import of_command, of_data, of_machine
from resnet_jax.training.logging import Clock, MetricsLog, NoLog, Record, read_metrics
from resnet_jax.training.plots import draw_curves
from resnet_jax.training.profile import profiled
from resnet_jax.training.progress import Reporter, create_reporter
from resnet_jax.training.resuming import find_checkpoint
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import evaluate
from resnet_jax.training.stored_preprocessing import evaluation_preprocessing
from resnet_jax.training.workdir import CURVES, METRICS, occupy, store_config


class DivergedError(ResNetError):
    """The loss or the gradient is not a finite number; the message names the step and the last good checkpoint."""


class Interrupted(ResNetError):  # noqa: N818 (it is not an error)
    """The run was asked to stop, and is saved."""

    exit_code = RESUMABLE


def run(
    config: Config,
    workdir: epath.PathLike,
    console: Console | None = None,
    processes: Processes | None = None,
) -> dict[str, float]:
    """Trains from where the workdir stands to `config.run.steps`, and returns the last record of metrics.jsonl.

    Args:
        config: The recipe.
        workdir: Of the run; the same for all its processes.
        console: What the person sees; the standard output by default, of the first process alone.
        processes: That train together, joined; this one alone by default.

    Raises:
        ConfigError, DeviceError, ModelError, DataError, WorkdirError, CheckpointError, ProcessError: What was asked for cannot be
            done.
        DivergedError: The loss or the gradient is not finite.
        Interrupted: SIGTERM or Ctrl-C came, and the state is saved.
    """
    processes = processes or Processes()
    console = console or Console(quiet=not processes.first)
    config = resolve(config)
    processes.agree("recipe and versions", of_command(config))
    prepare_jax(config, processes=processes.count)
    with occupy(workdir) if processes.first else nullcontext(epath.Path(workdir)) as path:
        processes.agree("workdir", {})  # The first has it: the others may look into it.
        saved = steps_in(path)
        processes.agree("machines and workdir", of_machine(saved))
        complete = bool(saved) and saved[-1] >= config.run.steps
        checkpoint = None if complete else find_checkpoint(path, processes, fallback=config.run.fallback)
        experiment = build_experiment(config, begun=path if saved else None)
        processes.agree("data", of_data(experiment))
        if processes.first:
            store_config(path, config)
        if not complete:
            _train(config, experiment, path, console, processes, checkpoint)
        elif processes.first:
            _say_complete(console, config, path, saved[-1])
        return read_metrics(path)[-1]


def _train(
    config: Config,
    experiment: Experiment,
    workdir: epath.Path,
    console: Console,
    processes: Processes,
    checkpoint: Checkpoint | None,
) -> None:
    start = checkpoint.step if checkpoint else 0
    console.print(
        _opening(config, experiment, workdir, start, processes.count),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if experiment.initial and not start:
        begins = experiment.initial.describe(
            head=experiment.head, classes=experiment.model_arguments["num_classes"]
        )
        console.print(begins, highlight=False, markup=False, soft_wrap=True)
    state = experiment.initial_state()
    if checkpoint:
        state = from_arrays(state, checkpoint.arrays)
    with ExitStack() as stack:
        stop = stack.enter_context(processes.stop_signals(start))
        log = (
            MetricsLog(workdir, step=start, tensorboard=config.run.tensorboard)
            if processes.first
            else NoLog()
        )
        stack.callback(log.close)
        writer = CheckpointWriter(
            workdir,
            keep=config.run.keep,
            config=to_json(config),
            model=experiment.model_arguments,
            class_names=config.inference.class_names or experiment.train.class_names,
            preprocessing=evaluation_preprocessing(config, experiment.train.image_shape[0]),
        )
        stack.callback(writer.close)
        reporter = stack.enter_context(create_reporter(console, start=start, steps=config.run.steps))
        profile = stack.enter_context(profiled(config.run.profile, workdir))
        state = experiment.mapping.replicate(state)
        _loop(
            config,
            experiment,
            state,
            start=start,
            log=log,
            writer=writer,
            reporter=reporter,
            profile=profile,
            stop=stop,
        )
        writer.wait()
    if processes.first:
        draw_curves(workdir, title=f"{config.model.name} on {config.data.source}")
        _say_summary(console, workdir)
    processes.agree("end", {})


def _loop(
    config: Config,
    experiment: Experiment,
    state: TrainState,
    *,
    start: int,
    log: MetricsLog | NoLog,
    writer: CheckpointWriter,
    reporter: Reporter,
    profile: Callable[[int, TrainState], None],
    stop: Callable[[int], bool],
) -> None:
    """Makes the steps. While one is computed the one before it is reported, and no more than these two are under way.

    More steps under way deadlock the CPU's collectives, and gain nothing elsewhere, since a step outlasts its dispatch.
    """
    options = config.run
    clock = Clock(config.batch_size)
    batches = read_ahead(
        experiment.train_batches,
        start,
        options.steps,
        workers=experiment.workers,
        buffer=options.read_ahead,
        processes=options.worker_processes,
    )
    report = partial(
        _report, log=log, reporter=reporter, log_every=options.log_every, last=options.steps, clock=clock
    )
    before: tuple[int, dict[str, jax.Array]] | None = None
    for step, batch in enumerate(clock.time_waiting(batches), start=start + 1):
        profile(step, state)
        state, metrics = experiment.train_step(state, experiment.mapping.shard(batch))
        if before:
            report(*before)
        before = step, metrics
        stopped, last = stop(step), step == options.steps
        evaluated = last or step % options.evaluate_every == 0
        saved = last or stopped or step % options.checkpoint_every == 0
        if evaluated or saved:
            jax.block_until_ready(state)
            tested = (
                evaluate(experiment.evaluation_step, state, experiment.test_batches, experiment.mapping)
                if evaluated
                else {}
            )
            report(*before, tested=tested)
            before = None
        if saved:
            log.sync()
            writer.save(step, state, {"top1": tested["top1"]} if evaluated else None)
        if stopped and not last:
            writer.wait()
            raise Interrupted(
                f"stopped and saved at step {step}; run the same command again to go on from there"
            )


def _report(
    step: int,
    metrics: dict[str, jax.Array],
    *,
    log: MetricsLog | NoLog,
    reporter: Reporter,
    log_every: int,
    last: int,
    clock: Clock,
    tested: dict[str, float] | None = None,
) -> None:
    """Waits for a step and writes it down.

    Raises:
        DivergedError: Its loss or its gradient is not finite; what it made of the state is not saved.
    """
    values = {name: float(value) for name, value in metrics.items()}
    for name in ("loss", "gradient_norm"):
        if not np.isfinite(values[name]):
            raise DivergedError(
                f"{name} is {values[name]} at step {step}; the last checkpoint is from before it. Try a lower "
                "--config.optimizer.learning_rate, or a warm-up (--config.optimizer.warmup_steps), in another --workdir"
            )
    record: Record = {
        "step": step,
        **values,
        **{f"test_{name}": value for name, value in (tested or {}).items()},
    }
    record |= clock.tick(step)
    reporter.step(record)
    if tested or step % log_every == 0 or step == last:
        log.write(record)


def _opening(config: Config, experiment: Experiment, workdir: epath.Path, start: int, processes: int) -> str:
    devices = experiment.mapping.devices
    where = f"{len(devices)} {devices[0].platform} device{'s' if len(devices) > 1 else ''}"
    where += f" of {processes} processes" if processes > 1 else ""
    where += f", batches in {config.run.accumulation} parts" if config.run.accumulation > 1 else ""
    begin = f"goes on from step {start} of {config.run.steps}" if start else f"{config.run.steps} steps"
    return (
        f"{config.model.name} on {config.data.source} ({len(experiment.train)} images), {where}, batch {config.batch_size}: "
        f"{begin}, into {workdir}"
    )


def _say_summary(console: Console, workdir: epath.Path) -> None:
    records = read_metrics(workdir)
    tested = [record for record in records if "test_top1" in record]
    last, best = tested[-1], max(tested, key=lambda record: record["test_top1"])
    text = (
        f"done: test accuracy {last['test_top1']:.2%}, error {1 - last['test_top1']:.2%} at step {last['step']:.0f} on "
        f"{last['test_examples']:.0f} images (best {best['test_top1']:.2%} at step {best['step']:.0f})\n"
        f"curves:      {workdir / CURVES}\n"
        f"records:     {workdir / METRICS}\n"
        f"checkpoints: {', '.join(map(str, steps_in(workdir)))} in {workdir / 'checkpoints'}\n"
        f"evaluate:    resnet-jax evaluate --workdir {workdir}"
    )
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _say_complete(console: Console, config: Config, workdir: epath.Path, step: int) -> None:
    if not (workdir / CURVES).exists():
        draw_curves(workdir, title=f"{config.model.name} on {config.data.source}")
    _say_summary(console, workdir)
    text = (
        f"this run was complete at step {step} already; to train longer raise --config.run.steps, to train anew choose another "
        "--workdir"
    )
    console.print(text, highlight=False, markup=False, soft_wrap=True)
