"""A run from its config to its end: resume, train, evaluate, save. Values go down from here; the config stays here."""

import dataclasses
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console

from resnet_jax.data.augment import normalise, pad_crop_mirror
from resnet_jax.data.batches import EvaluationBatches, TrainBatches, read_ahead
from resnet_jax.data.sources import Source, SyntheticSource, image_mean, open_source
from resnet_jax.models import create_model
from resnet_jax.parallel import AXIS_NAME, Mapping, choose_devices, create_mapping, prepare_backend, process_share
from resnet_jax.training.checkpoints import CheckpointWriter, from_arrays, read_checkpoint, steps_in
from resnet_jax.training.config import resolve, to_json
from resnet_jax.training.logging import MetricsLog, Record, read_metrics
from resnet_jax.training.optimizer import sgd
from resnet_jax.training.plots import draw_curves
from resnet_jax.training.progress import Reporter, create_reporter
from resnet_jax.training.schedules import step_decay
from resnet_jax.training.state import TrainState, create_state
from resnet_jax.training.step import evaluate, make_evaluation_step, make_train_step
from resnet_jax.training.workdir import CURVES, METRICS, occupy, store_config


class DivergedError(Exception):
    """The loss or the gradient is not a finite number; the message names the step and the last good checkpoint."""


class Interrupted(Exception):  # noqa: N818 (it is not an error)
    """The run was asked to stop, and is saved."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A recipe made concrete: the functions, data and devices of a run."""

    model: nn.Module
    model_arguments: dict[str, Any]
    optimizer: optax.GradientTransformation
    mapping: Mapping
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
    evaluation_step: Callable[[TrainState, Any], dict[str, jax.Array]]
    train: Source
    train_batches: TrainBatches
    test_batches: EvaluationBatches
    mean: str
    seed: int

    def initial_state(self) -> TrainState:
        """Returns the state before the first step, in host memory."""
        mean = image_mean(self.train, self.mean)
        shape = self.train.image_shape
        state = create_state(self.model, self.optimizer, seed=self.seed, image_shape=shape, image_mean=mean)
        return jax.device_get(state)


def run(config: ConfigDict, workdir: epath.PathLike, console: Console | None = None) -> dict[str, float]:
    """Trains from where the workdir stands to `config.run.steps`, and returns the last record of metrics.jsonl.

    Raises:
        ConfigError, DeviceError, ModelError, DataError, WorkdirError, CheckpointError: What was asked for cannot be done.
        DivergedError: The loss or the gradient is not finite.
        Interrupted: SIGTERM or Ctrl-C came, and the state is saved.
    """
    console = console or Console()
    config = resolve(config)
    prepare_jax(config)
    with occupy(workdir) as path:
        experiment = build_experiment(config)
        store_config(path, to_json(config))
        saved = steps_in(path)
        if saved and saved[-1] >= config.run.steps:
            _say_complete(console, config, path, saved[-1])
        else:
            _train(config, experiment, path, console)
        return read_metrics(path)[-1]


def prepare_jax(config: ConfigDict) -> None:
    """Sets the options of JAX that a config asks for; before JAX is used for the first time."""
    if config.model.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    prepare_backend(config.batch_size, config.model.group_size or None, config.run.devices)


def build_experiment(config: ConfigDict) -> Experiment:
    """Returns the functions, data and devices that a config describes."""
    group_size = config.model.group_size or None
    devices = choose_devices(config.batch_size, group_size, config.run.devices)
    mapping = create_mapping(config.run.mapping, devices)
    train, test = open_split(config, config.data.train_split), open_split(config, config.data.test_split, test=True)
    arguments = {
        "name": config.model.name,
        "num_classes": len(train.class_names),
        "dtype": config.model.dtype,
        "group_size": group_size,
        "variance": config.model.variance,
    }
    arguments |= {name: config.model[name] for name in ("shortcut", "stride_on") if config.model[name]}
    model = create_model(**arguments)
    schedule = step_decay(
        config.optimizer.learning_rate,
        boundaries=config.optimizer.boundaries,
        factor=config.optimizer.factor,
        warmup_steps=config.optimizer.warmup_steps,
        warmup_rate=config.optimizer.warmup_rate,
    )
    optimizer = sgd(
        schedule,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        decayed=config.optimizer.decayed,
    )
    augment = pad_crop_mirror(pad=config.data.pad, mirror=config.data.mirror)
    spread = model.clone(axis_name=AXIS_NAME)
    train_step = make_train_step(spread, optimizer, augment, schedule=schedule, seed=config.seed, axis_name=AXIS_NAME)
    evaluation_step = make_evaluation_step(spread, normalise, axis_name=AXIS_NAME)
    share = process_share(config.batch_size)
    return Experiment(
        model=model,
        model_arguments=arguments,
        optimizer=optimizer,
        mapping=mapping,
        train_step=mapping.map(train_step, donate=True),
        evaluation_step=mapping.map(evaluation_step, donate=False),
        train=train,
        train_batches=TrainBatches(train, config.batch_size, config.seed, share),
        test_batches=EvaluationBatches(test, config.batch_size, share),
        mean=config.data.mean,
        seed=config.seed,
    )


def open_split(config: ConfigDict, split: str, *, test: bool = False) -> Source:
    """Opens a split of the config's data."""
    examples = config.data.synthetic_examples
    synthetic = SyntheticSource(
        examples=max(1, examples // 8) if test else examples,
        image_size=config.data.synthetic_image_size,
        classes=config.data.synthetic_classes,
        seed=int(test),
    )
    return open_source(config.data.source, split, data_dir=config.run.data_dir or None, synthetic=synthetic)


def _train(config: ConfigDict, experiment: Experiment, workdir: epath.Path, console: Console) -> None:
    state, start = _restore(experiment, workdir)
    with ExitStack() as stack:
        log = MetricsLog(workdir, step=start, tensorboard=config.run.tensorboard)
        stack.callback(log.close)
        writer = CheckpointWriter(workdir, keep=config.run.keep, config=to_json(config), model=experiment.model_arguments)
        stack.callback(writer.close)
        stop = stack.enter_context(_stop_signals())
        reporter = stack.enter_context(create_reporter(console, start=start, steps=config.run.steps))
        reporter.say(_opening(config, experiment, workdir, start))
        state = experiment.mapping.replicate(state)
        _loop(config, experiment, state, start=start, log=log, writer=writer, reporter=reporter, stop=stop)
        writer.wait()
    draw_curves(workdir, title=f"{config.model.name} on {config.data.source}")
    _say_summary(console, workdir)


def _loop(
    config: ConfigDict,
    experiment: Experiment,
    state: TrainState,
    *,
    start: int,
    log: MetricsLog,
    writer: CheckpointWriter,
    reporter: Reporter,
    stop: Callable[[], bool],
) -> None:
    """Makes the steps. While one is computed the one before it is reported, and no more than these two are under way.

    More steps under way deadlock the CPU's collectives, and gain nothing elsewhere, since a step outlasts its dispatch.
    """
    options = config.run
    clock = Clock(config.batch_size)
    batches = read_ahead(experiment.train_batches, start, options.steps, workers=options.workers, buffer=options.read_ahead)
    report = partial(_report, log=log, reporter=reporter, log_every=options.log_every, last=options.steps, clock=clock)
    before: tuple[int, dict[str, jax.Array]] | None = None
    for step, batch in enumerate(clock.time_waiting(batches), start=start + 1):
        state, metrics = experiment.train_step(state, experiment.mapping.shard(batch))
        if before:
            report(*before)
        before = step, metrics
        stopped, last = stop(), step == options.steps
        evaluated = last or step % options.evaluate_every == 0
        saved = last or stopped or step % options.checkpoint_every == 0
        if evaluated or saved:
            jax.block_until_ready(state)
            tested = evaluate(experiment.evaluation_step, state, experiment.test_batches, experiment.mapping) if evaluated else {}
            report(*before, tested=tested)
            before = None
        if saved:
            log.sync()
            writer.save(step, state, {"top1": tested["top1"]} if evaluated else None)
        if stopped and not last:
            writer.wait()
            raise Interrupted(f"stopped and saved at step {step}; run the same command again to go on from there")


def _report(
    step: int,
    metrics: dict[str, jax.Array],
    *,
    log: MetricsLog,
    reporter: Reporter,
    log_every: int,
    last: int,
    clock: "Clock",
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
    record: Record = {"step": step, **values, **{f"test_{name}": value for name, value in (tested or {}).items()}}
    record |= clock.tick(step)
    reporter.step(record)
    if tested or step % log_every == 0 or step == last:
        log.write(record)


class Clock:
    """Measures images per second and the share of time that the loop waits for input, from one report to the next."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._waited = 0.0
        self._then = time.perf_counter()
        self._step: int | None = None

    def time_waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yields the batches and adds up how long each took to come."""
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.perf_counter() - began
            yield batch

    def tick(self, step: int) -> dict[str, float]:
        """Returns the fields of a record that tell of time."""
        now = time.perf_counter()
        elapsed = max(now - self._then, 1e-9)
        steps = step - self._step if self._step is not None else 1
        rate, share = steps * self._batch_size / elapsed, min(1.0, self._waited / elapsed)
        self._then, self._waited, self._step = now, 0.0, step
        return {"images_per_second": round(rate, 1), "input_share": round(share, 4), "time": round(time.time(), 3)}


def _restore(experiment: Experiment, workdir: epath.Path) -> tuple[TrainState, int]:
    """Returns the newest checkpoint's state and step, or the initial ones."""
    state = experiment.initial_state()
    if not steps_in(workdir):
        return state, 0
    checkpoint = read_checkpoint(workdir)
    return from_arrays(state, checkpoint.arrays), checkpoint.step


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGTERM or Ctrl-C came; the second signal acts at once, as without this."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _opening(config: ConfigDict, experiment: Experiment, workdir: epath.Path, start: int) -> str:
    devices = experiment.mapping.devices
    where = f"{len(devices)} {devices[0].platform} device{'s' if len(devices) > 1 else ''}"
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


def _say_complete(console: Console, config: ConfigDict, workdir: epath.Path, step: int) -> None:
    if not (workdir / CURVES).exists():
        draw_curves(workdir, title=f"{config.model.name} on {config.data.source}")
    _say_summary(console, workdir)
    text = (
        f"this run was complete at step {step} already; to train longer raise --config.run.steps, to train anew choose another "
        "--workdir"
    )
    console.print(text, highlight=False, markup=False, soft_wrap=True)
