"""Runs that differ in their seed alone, trained in one program: a step of all of them is one `vmap` of the step of one."""

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import jax
import numpy as np
from etils import epath
from rich.console import Console

from resnet_jax.data.batches import EvaluationBatches, HostBatch, TrainBatches, read_ahead
from resnet_jax.training.checkpoints import CheckpointWriter, from_arrays, read_checkpoint, steps_in
from resnet_jax.training.config import Config, to_json
from resnet_jax.training.experiment import Experiment, build_experiment, prepare_jax
from resnet_jax.training.logging import Clock, MetricsLog, Record
from resnet_jax.training.plots import draw_curves
from resnet_jax.training.progress import create_reporter
from resnet_jax.training.run import DivergedError
from resnet_jax.training.state import TrainState
from resnet_jax.training.stored_preprocessing import evaluation_preprocessing
from resnet_jax.training.workdir import occupy, store_config

LARGEST_SEED = 2**31 - 1
"""That a traced seed can be: it is an int32."""

Metrics = dict[str, np.ndarray]
"""Values [seeds] by name."""


@dataclasses.dataclass(frozen=True)
class SeedBatches:
    """The global batches of several seeds: every array of theirs is [batch, seeds, …], so that devices share out the first axis."""

    of_seeds: tuple[TrainBatches, ...]

    def __getitem__(self, step: int) -> HostBatch:
        batches = [batches[step] for batches in self.of_seeds]
        return {name: np.stack([batch[name] for batch in batches], axis=1) for name in batches[0]}


class Seeds:
    """The functions of an experiment, over a leading axis of seeds.

    Args:
        experiment: Of any of the seeds.
        seeds: From 0 to LARGEST_SEED.
    """

    def __init__(self, experiment: Experiment, seeds: Sequence[int]) -> None:
        self._of_seed = [dataclasses.replace(experiment, seed=seed) for seed in seeds]
        self._seeds = np.array(seeds, np.int32)
        self._mapping = experiment.mapping
        self.train_batches = SeedBatches(
            tuple(dataclasses.replace(experiment.train_batches, seed=seed) for seed in seeds)
        )

        def one_step(seed: jax.Array, state: TrainState, batch: Any) -> Any:
            return experiment.make_step(seed=seed)(state, batch)

        def all_steps(carried: Any, batch: Any) -> Any:
            numbers, state = carried
            state, metrics = jax.vmap(one_step, in_axes=(0, 0, 1))(numbers, state, batch)
            return (numbers, state), metrics

        def all_sums(carried: Any, batch: Any) -> Any:
            return jax.vmap(experiment.sum_over_device, in_axes=(0, None))(carried[1], batch)

        self._step = self._mapping.map(all_steps, donate=True)
        self._sums = self._mapping.map(all_sums, donate=False)

    def initial_states(self) -> list[TrainState]:
        """Returns the state of every seed before its first step."""
        return [experiment.initial_state() for experiment in self._of_seed]

    def place(self, states: Sequence[TrainState]) -> Any:
        """Returns what `step` carries on, on the devices: the seeds, and one state whose arrays are stacked."""
        stacked = jax.tree.map(lambda *arrays: np.stack([np.asarray(array) for array in arrays]), *states)
        return self._mapping.replicate((self._seeds, stacked))

    def step(self, carried: Any, batch: HostBatch) -> tuple[Any, dict[str, jax.Array]]:
        """Returns what to carry on, and the metrics [seeds] of the step."""
        return self._step(carried, self._mapping.shard(batch))

    def evaluate(self, carried: Any, batches: EvaluationBatches) -> Metrics:
        """Returns `loss`, `top1`, `top5` and `examples` of every seed, as `resnet_jax.training.step.evaluate` does of one."""
        totals: Metrics = {}
        for batch in batches:
            for name, value in self._sums(carried, self._mapping.shard(batch)).items():
                totals[name] = totals.get(name, 0) + np.asarray(value, np.float64)
        examples = totals.pop("examples")
        return {name: value / examples for name, value in totals.items()} | {"examples": examples.astype(int)}

    @staticmethod
    def states(carried: Any) -> list[TrainState]:
        """Returns the state of every seed, in host memory."""
        stacked = jax.device_get(carried[1])
        return [
            jax.tree.map(lambda array, number=number: array[number], stacked)
            for number in range(len(stacked.step))
        ]


def run_together(configs: Sequence[Config], workdirs: Sequence[epath.PathLike], console: Console) -> None:
    """Trains runs that differ in their seed alone and stand at the same step, each into its own workdir, as `run` does.

    In float64 they end as if trained one by one. In float32 sums are taken in another order, and curves part after some steps.

    Args:
        configs: Resolved; equal but for `seed`.
        workdirs: In the same order.
        console: Shows the mean over the seeds.

    Raises:
        WorkdirError, ConfigError, DataError, CheckpointError: As `run`.
        DivergedError: The loss or the gradient of a seed is not finite.
    """
    prepare_jax(configs[0])
    with ExitStack() as stack:
        paths = [stack.enter_context(occupy(workdir)) for workdir in workdirs]
        start = (steps_in(paths[0]) or [0])[-1]
        experiment = build_experiment(configs[0], begun=paths[0] if start else None)
        seeds = Seeds(experiment, [config.seed for config in configs])
        records = [
            _Files(path, config, experiment, start) for path, config in zip(paths, configs, strict=True)
        ]
        for files in records:
            stack.callback(files.close)
        states = seeds.initial_states()
        if start:
            states = [
                from_arrays(state, read_checkpoint(path).arrays)
                for state, path in zip(states, paths, strict=True)
            ]
        _loop(configs[0], experiment, seeds, seeds.place(states), start, records, console)
    for path, config in zip(paths, configs, strict=True):
        draw_curves(path, title=f"{config.model.name} on {config.data.source}")


def _loop(
    config: Config,
    experiment: Experiment,
    seeds: Seeds,
    carried: Any,
    start: int,
    records: Sequence["_Files"],
    console: Console,
) -> None:
    """Makes the steps; as in `resnet_jax.training.run`, no more than two are under way."""
    options = config.run
    clock = Clock(config.batch_size * len(records))
    batches: Any = seeds.train_batches
    ahead = read_ahead(batches, start, options.steps, workers=experiment.workers, buffer=options.read_ahead)
    before: tuple[int, dict[str, jax.Array]] | None = None
    with create_reporter(console, start=start, steps=options.steps) as reporter:

        def report(step: int, metrics: dict[str, jax.Array], tested: Metrics) -> None:
            values = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
            _check_finite(step, values, records)
            values |= {f"test_{name}": value for name, value in tested.items()}
            times = clock.tick(step)
            reporter.step(
                {"step": step, **{name: float(value.mean()) for name, value in values.items()}, **times}
            )
            if tested or step % options.log_every == 0 or step == options.steps:
                for number, files in enumerate(records):
                    files.write(
                        {
                            "step": step,
                            **{name: value[number].item() for name, value in values.items()},
                            **times,
                        }
                    )

        for step, batch in enumerate(clock.time_waiting(ahead), start=start + 1):
            carried, metrics = seeds.step(carried, batch)
            if before:
                report(*before, {})
            before = step, metrics
            last = step == options.steps
            evaluated = last or step % options.evaluate_every == 0
            saved = last or step % options.checkpoint_every == 0
            if evaluated or saved:
                jax.block_until_ready(carried)
                tested = seeds.evaluate(carried, experiment.test_batches) if evaluated else {}
                report(*before, tested)
                before = None
            if saved:
                for number, (files, state) in enumerate(zip(records, seeds.states(carried), strict=True)):
                    files.save(step, state, {"top1": float(tested["top1"][number])} if evaluated else None)
        for files in records:
            files.wait()


class _Files:
    """What one of the runs writes: its config, its records and its checkpoints."""

    def __init__(self, workdir: epath.Path, config: Config, experiment: Experiment, start: int) -> None:
        store_config(workdir, config)
        self.seed = config.seed
        self._log = MetricsLog(workdir, step=start, tensorboard=config.run.tensorboard)
        self._writer = CheckpointWriter(
            workdir,
            keep=config.run.keep,
            config=to_json(config),
            model=experiment.model_arguments,
            class_names=config.inference.class_names or experiment.train.class_names,
            preprocessing=evaluation_preprocessing(config, experiment.train.image_shape[0]),
        )

    def write(self, record: Record) -> None:
        self._log.write(record)

    def save(self, step: int, state: TrainState, metrics: dict[str, float] | None) -> None:
        self._log.sync()
        self._writer.save(step, state, metrics)

    def wait(self) -> None:
        self._writer.wait()

    def close(self) -> None:
        self._writer.close()
        self._log.close()


def _check_finite(step: int, values: Metrics, records: Sequence[_Files]) -> None:
    for name in ("loss", "gradient_norm"):
        wrong = ~np.isfinite(values[name])
        if wrong.any():
            seed = records[int(np.argmax(wrong))].seed
            raise DivergedError(f"{name} of seed {seed} is {values[name][np.argmax(wrong)]} at step {step}")


def seconds_per_step(config: Config, seeds: Sequence[int], *, steps: int = 5) -> dict[str, float]:
    """Returns the time that a step of all seeds takes, `separate` and `together`, medians of steps that take turns.

    Compilation is not in it. The steps of a seed by itself are those of `run`.
    """
    prepare_jax(config)
    experiment = build_experiment(config)
    both = Seeds(experiment, seeds)
    states = both.initial_states()
    carried = both.place(states)
    placed = [experiment.mapping.replicate(state) for state in states]
    stacked = both.train_batches[0]
    single = [batches[0] for batches in both.train_batches.of_seeds]
    taken: dict[str, list[float]] = {"separate": [], "together": []}
    for _ in range(steps + 2):
        began = time.perf_counter()
        for number, batch in enumerate(single):
            placed[number], _ = jax.block_until_ready(
                experiment.train_step(placed[number], experiment.mapping.shard(batch))
            )
        middle = time.perf_counter()
        carried, _ = jax.block_until_ready(both.step(carried, stacked))
        taken["separate"].append(middle - began)
        taken["together"].append(time.perf_counter() - middle)
    return {name: float(np.median(times[2:])) for name, times in taken.items()}
