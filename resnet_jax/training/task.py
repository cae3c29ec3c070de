"""What is learned, as the rest of training sees it.

A task makes of a config the functions, data and devices of a run.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
from etils import epath
from jaxtyping import Array

from resnet_jax.data.batches import EvaluationBatches, HostBatch, Numbered
from resnet_jax.files import JsonObject
from resnet_jax.models.import_by_name import calling, import_by_name
from resnet_jax.models.registry import ModelArguments
from resnet_jax.models.trusted_code import trust
from resnet_jax.parallel import Mapping
from resnet_jax.training.config import Config, flat_fields
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.data_record import DataRecord
from resnet_jax.training.logging import Record
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import EvaluationStep, TrainStep

TASKS = {
    "classification": "resnet_jax.training.classification:classification_task",
    "detection": "resnet_jax.detection.detection_task:DetectionTask",
}
"""Tasks of the package by the value of the field `task`."""


class Curve(NamedTuple):
    """A quantity that is drawn over the steps of a run.

    Attributes:
        train: Its name in the records of training steps.
        test: Its name in the records of evaluations.
        label: Label of the axis.
        value: What is drawn of a record's value.
        least: Smallest upper end of the axis.
    """

    train: str
    test: str
    label: str
    value: Callable[[float], float]
    least: float


@dataclasses.dataclass(frozen=True)
class Display:
    """How a run is shown and judged.

    Attributes:
        title: What is trained, for example "cifar_resnet20 on digits".
        data: What it is trained on, for example "1437 images".
        score: Test metric by which the best checkpoint is chosen; higher is better.
        line: Text of a record for the progress line.
        curve: What curves.png shows.
        summary: Text of the records of all evaluations, for the end of a run.
        notes: Lines that are printed when a run begins.
    """

    title: str
    data: str
    score: str
    line: Callable[[Record], str]
    curve: Curve
    summary: Callable[[Sequence[Record]], str]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SeedFunctions:
    """A run as functions of its seed, on one device's part of the batch: for seeds that share one program.

    Attributes:
        make_step: Returns the training step of a seed, which may be traced.
        evaluation_step: Returns the sums of an evaluation batch.
        initial_state: Returns the state of a seed before its first step, in host memory.
        train_batches: Returns the training batches of a seed.
        test_batches: Batches of the test split.
    """

    make_step: Callable[[int | Array], TrainStep]
    evaluation_step: EvaluationStep
    initial_state: Callable[[int], TrainState]
    train_batches: Callable[[int], Numbered[HostBatch]]
    test_batches: EvaluationBatches


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config made concrete: the functions, data and devices of a run.

    Attributes:
        model: The network.
        model_arguments: Arguments of create_model that make it; stored with every checkpoint.
        mapping: The devices, and how functions are mapped over them.
        initial_state: Returns the state before the first step, in host memory.
        train_step: Training step, mapped over the devices.
        train_batches: Training batches by step.
        test: Returns the metrics of the test split for a state on the devices.
        display: How the run is shown and judged.
        described: Facts of the data, which must be the same on all processes.
        image_shape: Height, width and channels of the images.
        class_names: Names of the classes by label; stored with every checkpoint.
        preprocessing: How a picture becomes an image; stored with every checkpoint.
        data_record: Class names, counts and fingerprints of the data, which are the same whenever the run is
            resumed; see `resnet_jax.training.data_record`.
        seeds: The run as functions of its seed, if several seeds may share a program.
    """

    model: nn.Module
    model_arguments: ModelArguments
    mapping: Mapping
    initial_state: Callable[[], TrainState]
    train_step: TrainStep
    train_batches: Numbered[HostBatch]
    test: Callable[[TrainState], dict[str, float]]
    display: Display
    described: JsonObject
    image_shape: tuple[int, int, int]
    class_names: Sequence[str] | None = None
    preprocessing: JsonObject | None = None
    data_record: DataRecord | None = None
    seeds: SeedFunctions | None = None


@dataclasses.dataclass(frozen=True)
class AbstractTraining:
    """A training step that can be compiled without data and devices.

    Attributes:
        train_step: On one device's part of the batch.
        state: Shapes and dtypes of the state.
        batch: Returns shapes and dtypes of a global batch of a size.
        stand_in: The dataset is not at hand, and the config's synthetic data stand in for its shapes.
    """

    train_step: TrainStep
    state: TrainState
    batch: Callable[[int], dict[str, jax.ShapeDtypeStruct]]
    stand_in: bool


class Task:
    """What is learned. A config names one by `task`: a name of TASKS, or your own as package.module:Class.

    `resnet_jax.training.image_task.ImageTask` is a task whose loss and metrics are functions of outputs and
    labels.
    """

    def experiment(self, config: Config, *, begun: epath.PathLike | None = None) -> Experiment:
        """Returns the functions, data and devices that a config describes.

        Args:
            config: The resolved config.
            begun: Directory of a run that is resumed. Its own weights take the place of those that it began
                with, which may be gone.
        """
        raise NotImplementedError

    def abstract(self, config: Config, *, classes: int | None = None) -> AbstractTraining:
        """Returns the training step without data and devices, for `resnet-jax plan`.

        Args:
            config: The resolved config.
            classes: Number of classes. Defaults to the dataset's.
        """
        del classes
        raise ConfigError(
            f"config.task is {config.task!r}, which cannot be planned: it has no method `abstract`"
        )


def open_task(config: Config) -> Task:
    """Returns the task that a config names.

    Raises:
        ModelError, ConfigError: There is none of this name.
    """
    name = TASKS.get(config.task, config.task)
    make = import_by_name(name, field="config.task", directory=config.run.code_dir)
    with calling(name, make, field="config.task", form="task() -> Task"):
        task = make()
    if not isinstance(task, Task):
        raise ConfigError(
            f"config.task is {config.task!r}, which makes a {type(task).__name__}; it must make a "
            "resnet_jax.training.task.Task"
        )
    return task


def build_experiment(config: Config, *, begun: epath.PathLike | None = None) -> Experiment:
    """Returns the functions, data and devices that a config describes; see Task.experiment."""
    trust(flat_fields(config).values())  # Whoever trains or resumes has named them.
    return open_task(config).experiment(config, begun=begun)
