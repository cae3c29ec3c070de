"""Runs that differ in their seed alone, trained in one program.

A step of all of them is one `vmap` of the step of one.
"""

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, PyTree
from rich.console import Console

from resnet_jax.data.batches import HostBatch, Numbered
from resnet_jax.parallel import Processes
from resnet_jax.training.checkpoints import CheckpointError, from_arrays
from resnet_jax.training.config import Config
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.device_layout import LayoutChoice
from resnet_jax.training.logging import Clock, is_logged, test_fields
from resnet_jax.training.loop import train_steps
from resnet_jax.training.network import prepare_jax
from resnet_jax.training.plots import draw_run_curves
from resnet_jax.training.progress import Reporter
from resnet_jax.training.resuming import find_checkpoint
from resnet_jax.training.run_files import RunFiles, check_finite, store_run
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Batch, evaluate
from resnet_jax.training.stopwatch import Stopwatch
from resnet_jax.training.task import Experiment, build_experiment
from resnet_jax.training.workdir import occupy

LARGEST_SEED = 2**31 - 1  # A traced seed is an int32.

Values = dict[str, np.ndarray]  # Values [seeds] by name.


@dataclasses.dataclass(frozen=True)
class SeedBatches:
    """The global batches of several seeds.

    Every array is [batch, seeds, …], so that devices share the first axis.
    """

    of_seeds: tuple[Numbered[HostBatch], ...]

    def __getitem__(self, step: int) -> HostBatch:
        batches = [batches[step] for batches in self.of_seeds]
        return {name: np.stack([batch[name] for batch in batches], axis=1) for name in batches[0]}


class VmappedSteps:
    """The functions of an experiment, over a leading axis of seeds.

    Args:
        experiment: Experiment of any of the seeds.
        seeds: Seeds from 0 to LARGEST_SEED.

    Raises:
        ConfigError: The task does not give its run as functions of the seed.
    """

    def __init__(self, experiment: Experiment, seeds: Sequence[int]) -> None:
        functions = experiment.seeds
        if functions is None:
            raise ConfigError("this task trains one seed at a time; train the seeds one by one")
        self.functions, self._mapping = functions, experiment.mapping
        self._seeds = np.array(seeds, np.int32)
        self.train_batches = SeedBatches(tuple(map(functions.train_batches, seeds)))

        def one_step(seed: Array, state: TrainState, batch: Batch) -> PyTree:
            return functions.make_step(seed)(state, batch)

        def all_steps(carried: PyTree, batch: Batch) -> PyTree:
            numbers, state = carried
            state, metrics = jax.vmap(one_step, in_axes=(0, 0, 1))(numbers, state, batch)
            return (numbers, state), metrics

        def all_sums(carried: PyTree, batch: Batch) -> PyTree:
            return jax.vmap(functions.evaluation_step, in_axes=(0, None))(carried[1], batch)

        self._step = self._mapping.map(all_steps, donate=True)
        self._sums = self._mapping.map(all_sums, donate=False)

    def place(self, states: Sequence[TrainState]) -> PyTree:
        """Returns what `step` carries on, on the devices.

        The seeds, and one state whose arrays are stacked.
        """
        stacked = jax.tree.map(lambda *arrays: np.stack([np.asarray(array) for array in arrays]), *states)
        return self._mapping.replicate((self._seeds, stacked))

    def step(self, carried: PyTree, batch: HostBatch) -> tuple[PyTree, dict[str, Array]]:
        """Returns what to carry on, and the metrics [seeds] of the step."""
        return self._step(carried, self._mapping.shard(batch))

    def evaluate(self, carried: PyTree) -> Values:
        """Returns the metrics [seeds] of the test split."""
        return evaluate(self._sums, carried, self.functions.test_batches, self._mapping)

    @staticmethod
    def states(carried: PyTree) -> list[TrainState]:
        """Returns the state of every seed, in host memory."""
        stacked = jax.device_get(carried[1])
        return [
            jax.tree.map(lambda array, number=number: array[number], stacked)
            for number in range(len(stacked.step))
        ]


class SeedsTrainer:
    """Several seeds, as the loop trains them; see `resnet_jax.training.loop.Trainer`."""

    def __init__(
        self,
        configs: Sequence[Config],
        steps: VmappedSteps,
        carried: PyTree,
        files: Sequence[RunFiles],
        reporter: Reporter,
    ) -> None:
        self._configs, self._steps, self._carried = configs, steps, carried
        self._files, self._reporter = files, reporter

    def step(self, number: int, batch: HostBatch) -> dict[str, Array]:
        del number
        self._carried, metrics = self._steps.step(self._carried, batch)
        return metrics

    def report(self, number: int, metrics: dict[str, Array], tested: Values | None, clock: Clock) -> None:
        values = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
        of_seeds = [
            {name: value[place].item() for name, value in values.items()} for place in range(len(self._files))
        ]
        for config, one in zip(self._configs, of_seeds, strict=True):
            check_finite(number, one, f" of seed {config.seed}")
        times = clock.tick(number)
        means = {name: float(value.mean()) for name, value in {**values, **test_fields(tested or {})}.items()}
        self._reporter.step({"step": number, **means, **times})
        if is_logged(number, tested, self._configs[0].run):
            for place, (files, one) in enumerate(zip(self._files, of_seeds, strict=True)):
                files.write({"step": number, **one, **test_fields(_of_seed(tested, place)), **times})

    def settle(self) -> None:
        jax.block_until_ready(self._carried)

    def evaluate(self) -> Values:
        return self._steps.evaluate(self._carried)

    def save(self, number: int, tested: Values | None) -> None:
        for place, (files, state) in enumerate(
            zip(self._files, self._steps.states(self._carried), strict=True)
        ):
            files.save(number, state, _of_seed(tested, place) or None)

    def wait(self) -> None:
        for files in self._files:
            files.wait()


def _of_seed(tested: Values | None, place: int) -> dict[str, float]:
    results = {name: value[place].item() for name, value in (tested or {}).items()}
    return results | ({"examples": int(results["examples"])} if results else {})


def run_vmapped_seeds(
    configs: Sequence[Config], workdirs: Sequence[epath.PathLike], console: Console
) -> None:
    """Trains runs that differ only in their seed and stand at one step, each into its own workdir.

    In float64 they end as if trained one by one. In float32 sums are taken in another order, and curves part
    after some steps.

    Args:
        configs: Resolved configs, equal but for `seed`.
        workdirs: Directories of the runs, in the same order.
        console: Console that shows the mean over the seeds.

    Raises:
        UsageError: As `run`; or the runs do not stand at the same step.
        DivergedError: The loss or the gradient of a seed is not finite.
        Interrupted: SIGTERM or Ctrl-C came, and all states are saved.
    """
    options, processes, stopwatch = configs[0].run, Processes(), Stopwatch()
    prepare_jax(configs[0])
    with ExitStack() as stack:
        paths = [stack.enter_context(occupy(workdir)) for workdir in workdirs]
        with stopwatch.measure("restoring"):
            found = [find_checkpoint(path, processes, fallback=options.fallback) for path in paths]
        starts = [checkpoint.step if checkpoint else 0 for checkpoint in found]
        if len(set(starts)) > 1:
            where = ", ".join(f"{path} at step {start}" for path, start in zip(paths, starts, strict=True))
            raise CheckpointError(f"seeds in one program stand at one step, and these do not: {where}")
        start = starts[0]
        experiment = build_experiment(configs[0], begun=paths[0] if start else None)
        steps = VmappedSteps(experiment, [config.seed for config in configs])
        states = [steps.functions.initial_state(config.seed) for config in configs]
        states = [
            from_arrays(state, checkpoint.arrays) if checkpoint else state
            for state, checkpoint in zip(states, found, strict=True)
        ]
        files = []
        layout = LayoutChoice(options.accumulation or 1).layout(configs[0], len(experiment.mapping.devices))
        for path, config in zip(paths, configs, strict=True):
            store_run(path, config, experiment)
            files.append(RunFiles(path, config, experiment, start, stopwatch, layout=layout))
            stack.callback(files[-1].close)
        stop = stack.enter_context(processes.stop_signals(start))
        reporter = Reporter(console, experiment.display.line, start=start, steps=options.steps)
        stack.enter_context(reporter.bar)
        trainer = SeedsTrainer(configs, steps, steps.place(states), files, reporter)
        images = configs[0].batch_size * len(configs)
        train_steps(
            trainer,
            steps.train_batches,
            start=start,
            options=options,
            images=images,
            stop=stop,
            stopwatch=stopwatch,
        )
    for path in paths:
        draw_run_curves(path, experiment.display)


def seconds_per_step(config: Config, seeds: Sequence[int], *, steps: int = 5) -> dict[str, float]:
    """Returns the median time of a step of all seeds, `separate` and `together`, which take turns.

    Compilation is not included. The steps of a seed by itself are those of `run`.
    """
    prepare_jax(config)
    experiment = build_experiment(config)
    both = VmappedSteps(experiment, seeds)
    states = [both.functions.initial_state(seed) for seed in seeds]
    carried = both.place(states)
    placed = [experiment.mapping.replicate(state) for state in states]
    stacked = both.train_batches[0]
    single = [batches[0] for batches in both.train_batches.of_seeds]

    def separate() -> None:
        for number, batch in enumerate(single):
            shard = experiment.mapping.shard(batch)
            placed[number], _ = jax.block_until_ready(experiment.train_step(placed[number], shard))

    def together() -> None:
        nonlocal carried
        carried, _ = jax.block_until_ready(both.step(carried, stacked))

    taken: dict[str, list[float]] = {"separate": [], "together": []}
    for _ in range(steps + 2):
        for name, make in {"separate": separate, "together": together}.items():
            began = time.perf_counter()
            make()
            taken[name].append(time.perf_counter() - began)
    return {name: float(np.median(times[2:])) for name, times in taken.items()}
