"""What a run writes into its workdir: config, records, checkpoints."""

import numpy as np
from etils import epath

from resnet_jax.training.checkpoint_writer import CheckpointWriter
from resnet_jax.training.config import Config, to_json
from resnet_jax.training.data_record import store_record
from resnet_jax.training.device_layout import DeviceLayout, store_layout
from resnet_jax.training.logging import MetricsLog, Record, read_metrics
from resnet_jax.training.loop import DivergedError
from resnet_jax.training.state import TrainState
from resnet_jax.training.stopwatch import Stopwatch
from resnet_jax.training.task import Experiment
from resnet_jax.training.wall_time import WallTimeRecorder
from resnet_jax.training.workdir import store_config


class RunFiles:
    """The files of one run; closed when the block around it ends.

    Args:
        workdir: Directory of the run.
        config: Its config.
        experiment: Its experiment, for what checkpoints hold.
        start: The step that the run continues from.
        stopwatch: Measures the time of this process.
        layout: How the run is laid over devices. It is recorded with the first checkpoint, since only then
            it is known to fit.
        first: Whether this process writes the records: the first of the run does.
    """

    def __init__(
        self,
        workdir: epath.Path,
        config: Config,
        experiment: Experiment,
        start: int,
        stopwatch: Stopwatch,
        *,
        layout: DeviceLayout,
        first: bool = True,
    ) -> None:
        self._workdir, self._layout = workdir, layout if first else None
        tensorboard = config.run.tensorboard
        self._stopwatch = stopwatch
        self._wall_time: WallTimeRecorder | None = None
        self._log: MetricsLog | None = None
        if first:  # The time of lost steps is stored before their records are dropped.
            records = read_metrics(workdir)
            self._wall_time = WallTimeRecorder(workdir, records, step=start, stopwatch=stopwatch)
            self._log = MetricsLog(workdir, step=start, tensorboard=tensorboard)
        self._score = experiment.display.score
        self._writer = CheckpointWriter(
            workdir,
            keep=config.run.keep,
            config=to_json(config),
            model=experiment.model_arguments,
            score=self._score,
            class_names=experiment.class_names,
            preprocessing=experiment.preprocessing,
        )

    def write(self, record: Record) -> None:
        """Appends a record with the wall time so far."""
        if self._log and self._wall_time:
            self._log.write({**record, **self._wall_time.fields(int(record["step"]))})

    def save(self, step: int, state: TrainState, tested: dict[str, float] | None) -> None:
        """Starts to save a state, after the records up to it are on the disk."""
        if self._log:
            self._log.sync()
        if self._layout:
            store_layout(self._workdir, self._layout)
            self._layout = None
        self._writer.save(step, state, {self._score: tested[self._score]} if tested else None)

    def wait(self) -> None:
        """Returns when everything is saved."""
        self._writer.wait()

    def close(self) -> None:
        """Closes the files, and stores the wall time."""
        with self._stopwatch.measure("saving"):
            self._writer.close()
        if self._wall_time:
            self._wall_time.close()
        if self._log:
            self._log.close()


def store_run(workdir: epath.Path, config: Config, experiment: Experiment) -> None:
    """Writes the config of a run and the record of its data.

    Raises:
        WorkdirError: The workdir holds checkpoints of another recipe, or of other data.
    """
    moved = store_config(workdir, config)
    if experiment.data_record is not None:
        store_record(workdir, experiment.data_record, moved=moved)


def check_finite(step: int, values: dict[str, float], run: str = "") -> None:
    """Raises DivergedError if the loss or the gradient of a step is not finite."""
    for name in ("loss", "gradient_norm"):
        if not np.isfinite(values[name]):
            raise DivergedError(
                f"{name}{run} is {values[name]} at step {step}; the last checkpoint is from before it. Try "
                "a lower --config.optimizer.learning_rate, or a warm-up (--config.optimizer.warmup_steps), "
                "in another --workdir"
            )
