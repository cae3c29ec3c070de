"""A task that learns a label of every image, by a loss and metrics of outputs and labels."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from resnet_jax.data.augment import normalize
from resnet_jax.data.batches import EvaluationBatches, TrainBatches, reading_threads
from resnet_jax.data.choices import DIGITS, DIGITS_SIDE
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import check_classes, check_prepared
from resnet_jax.data.source import Source
from resnet_jax.data.statistics import image_mean
from resnet_jax.models import create_model
from resnet_jax.parallel import AXIS_NAME, choose_devices, create_mapping, process_share
from resnet_jax.training.config import Config
from resnet_jax.training.data_record import record_of, trained_class_names
from resnet_jax.training.factories import (
    build_augmentation,
    build_loss,
    build_optimizer,
    check_ignored_fields,
)
from resnet_jax.training.initial import read_initial
from resnet_jax.training.logging import Record
from resnet_jax.training.network import (
    micro_batch_size,
    model_arguments,
    on_axis,
    training_form,
    with_scanned_stages,
)
from resnet_jax.training.splits import open_split
from resnet_jax.training.state import TrainState, create_state
from resnet_jax.training.step import (
    Loss,
    Measures,
    SumsOfBatch,
    TrainStep,
    as_numbers,
    evaluate,
    make_evaluation_step,
    make_train_step,
)
from resnet_jax.training.stored_classes import check_same_classes
from resnet_jax.training.stored_preprocessing import evaluation_preprocessing
from resnet_jax.training.stored_statistics import MOVING
from resnet_jax.training.task import AbstractTraining, Curve, Display, Experiment, SeedFunctions, Task

COUNTED = 20_000  # Images of a dataset whose classes are counted at the start.
LISTED = 12  # Classes whose counts are listed one by one.


@dataclasses.dataclass(frozen=True)
class ImageTask(Task):
    """A label of every image is learned.

    Attributes:
        measures: Metrics of a training step besides the loss: (outputs [n, k], labels [n]) → means.
        sums: Sums of an evaluation batch: (outputs, labels, mask) → `examples`, their number, and sums over
            them.
        score: Test metric by which the best checkpoint is chosen; higher is better.
        line: Text of a record for the progress line.
        curve: What curves.png shows.
        summary: Text of the records of all evaluations, for the end of a run.
        loss: Loss of each example: (outputs, labels) → [n]. None is the one that the config describes.
        outputs: Length of the network's output. None is the number of classes.
    """

    measures: Measures
    sums: SumsOfBatch
    score: str
    line: Callable[[Record], str]
    curve: Curve
    summary: Callable[[Sequence[Record]], str]
    loss: Loss | None = None
    outputs: int | None = None

    def experiment(self, config: Config, *, begun: epath.PathLike | None = None) -> Experiment:
        """Returns the functions, data and devices that a config describes; see Task."""
        if begun is None:
            check_ignored_fields(config.optimizer)
        part, group_size = micro_batch_size(config), config.model.group_size
        devices = choose_devices(part, group_size, config.run.devices)
        mapping = create_mapping(config.run.mapping, devices)
        train, test = _open_data(config, begun)
        shape = train.image_shape
        origin, head = (begun, "kept") if begun else (config.initial.source, config.initial.head)
        statistics = MOVING if begun else config.initial.statistics
        initial = read_initial(origin, statistics) if config.initial.source and origin else None
        arguments = model_arguments(config, self.outputs or len(train.class_names))
        if initial:
            arguments = initial.model_arguments(arguments, head=head)
            if head == "kept" and not begun:
                initial.check_classes(train.class_names)
        model = with_scanned_stages(create_model(**arguments), config)
        optimizer, make_step = self._training(config, model, shape)
        evaluation_step = make_evaluation_step(on_axis(model), normalize, axis_name=AXIS_NAME, sums=self.sums)
        workers, options = reading_threads(config.run.workers), config.run
        share = process_share(config.batch_size, devices, parts=options.accumulation or 1)
        test_share = process_share(part, devices)
        seeds = SeedFunctions(
            make_step=make_step,
            evaluation_step=evaluation_step,
            initial_state=lambda seed: _initial_state(
                partial(create_state, model, optimizer, seed=seed, image_shape=shape),
                partial(image_mean, train, config.data.mean, workers=workers),
                partial(initial.begin, head=head, image_shape=shape) if initial else None,
            ),
            train_batches=lambda seed: TrainBatches(train, config.batch_size, seed, share),
            test_batches=EvaluationBatches(test, part, test_share, workers, options.read_ahead),
        )
        test_step = mapping.map(evaluation_step, donate=False)
        notes = () if begun else _notes(config, train, test)
        if initial and not begun:
            notes += (initial.describe(head=head, classes=arguments["num_classes"]),)
        return Experiment(
            model=model,
            model_arguments=arguments,
            mapping=mapping,
            initial_state=partial(seeds.initial_state, config.seed),
            train_step=mapping.map(make_step(config.seed), donate=True),
            train_batches=seeds.train_batches(config.seed),
            test=lambda state: as_numbers(evaluate(test_step, state, seeds.test_batches, mapping)),
            display=self._display(config, train, notes),
            described={
                "training examples": len(train),
                "test examples": len(test),
                "classes": len(train.class_names),
                "image shape": list(shape),
            },
            data_record=record_of(train, test),
            image_shape=shape,
            class_names=config.inference.class_names or tuple(train.class_names),
            preprocessing=evaluation_preprocessing(config, shape[0]),
            seeds=seeds,
        )

    def abstract(self, config: Config, *, classes: int | None = None) -> AbstractTraining:
        """Returns the training step without data and devices; see Task."""
        shape, known, stand_in = _described_data(config)
        arguments = model_arguments(config, self.outputs or classes or known)
        if config.initial.source:
            initial = read_initial(config.initial.source)
            arguments = initial.model_arguments(arguments, head=config.initial.head)
        model = with_scanned_stages(create_model(**arguments), config)
        optimizer, make_step = self._training(config, model, shape)
        mean = np.zeros(3 if config.data.mean in ("channel", "imagenet") else shape, np.float32)
        create = partial(create_state, model, optimizer, seed=config.seed, image_shape=shape, image_mean=mean)
        return AbstractTraining(
            make_step(config.seed), jax.eval_shape(create), lambda size: abstract_batch(size, shape), stand_in
        )

    def _training(
        self, config: Config, model: nn.Module, shape: tuple[int, int, int]
    ) -> tuple[optax.GradientTransformationExtraArgs, Callable[[int | jax.Array], TrainStep]]:
        """Returns the optimizer, and what makes the training step of a seed; needs no data and no devices."""
        code_dir = config.run.code_dir
        schedule, optimizer = build_optimizer(config.optimizer, code_dir)
        trained = training_form(model, config, image_shape=shape)
        augment = build_augmentation(config.data)
        loss = self.loss or build_loss(config.optimizer, code_dir)

        def make_step(seed: int | jax.Array) -> TrainStep:
            return make_train_step(
                trained,
                optimizer,
                augment,
                schedule=schedule,
                seed=seed,
                axis_name=AXIS_NAME,
                loss=loss,
                measures=self.measures,
                accumulation=config.run.accumulation or 1,
                frozen=config.optimizer.frozen,
            )

        return optimizer, make_step

    def _display(self, config: Config, train: Source, notes: tuple[str, ...]) -> Display:
        title, data = f"{config.model.name} on {config.data.source}", f"{len(train)} images"
        return Display(title, data, self.score, self.line, self.curve, self.summary, notes)


def _open_data(config: Config, begun: epath.PathLike | None) -> tuple[Source, Source]:
    """Returns the training and the test split, with the classes that a run was begun with."""
    trained = trained_class_names(begun) if begun else None
    train = open_split(config, config.data.train_split, class_names=trained)
    test = open_split(config, config.data.test_split, test=True, class_names=trained)
    check_classes(train, test)
    if trained:
        check_same_classes(
            trained,
            train.class_names,
            where=str(begun),
            advice="Restore the names and numbers of the classes, or choose another --workdir",
        )
    return train, test


def _notes(config: Config, train: Source, test: Source) -> tuple[str, ...]:
    """Returns what a user should see of data and schedule before training."""
    notes: tuple[str, ...] = ()
    if len(train) + len(test) <= COUNTED:
        for name, source in (("training", train), ("test", test)):
            counts = np.bincount(source.labels, minlength=len(source.class_names))
            each = [f"{label} {count}" for label, count in zip(source.class_names, counts, strict=True)]
            spread = f"{counts.min()} to {counts.max()} in each of {len(counts)} classes"
            notes += (f"{name} images: {', '.join(each) if len(each) <= LISTED else spread}",)
            if not counts.all():
                notes += (f"warning: {(counts == 0).sum()} classes have no {name} images",)
    late = [step for step in config.optimizer.boundaries if step >= config.run.steps]
    if late:
        notes += (
            f"warning: run.steps is {config.run.steps}, so the learning rate does not fall at "
            f"{', '.join(map(str, late))} (config.optimizer.boundaries)",
        )
    return notes


def _described_data(config: Config) -> tuple[tuple[int, int, int], int, bool]:
    """Returns shape of the images and number of classes, and whether synthetic data stand in for them.

    Nothing is downloaded or prepared for it.
    """
    data = config.data
    try:
        check_prepared(data.source, config.run.data_dir)
        source = open_split(config, data.train_split)
        return source.image_shape, len(source.class_names), False
    except DataError:
        digits = data.source == DIGITS
        size = data.image_size or (DIGITS_SIDE if digits else data.synthetic_image_size)
        classes = len(data.labels or ()) or (10 if digits else _classes_of_tfds(config))
        return (size, size, 3), classes, not digits


def _classes_of_tfds(config: Config) -> int:
    """Returns the number of classes that TFDS knows of a set; nothing is downloaded for it."""
    from resnet_jax.data.tfds_sets import tfds_class_names  # Here: other sources need not wait for TFDS.

    try:
        return len(tfds_class_names(config.data.source or "", config.run.data_dir))
    except DataError:
        return config.data.synthetic_classes


def _initial_state(
    create: Callable[..., TrainState],
    mean: Callable[[], np.ndarray],
    begin: Callable[[TrainState], TrainState] | None,
) -> TrainState:
    """Returns the state before the first step, in host memory: random, or with the weights of another run."""
    if begin is None:
        return jax.device_get(create(image_mean=mean()))
    return begin(jax.device_get(create(image_mean=np.zeros(3, np.float32))))


def abstract_batch(size: int, shape: tuple[int, int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of a global batch of this many images."""
    kinds = {"label": jnp.int32, "index": jnp.int32, "mask": jnp.bool_}
    images = jax.ShapeDtypeStruct((size, *shape), jnp.uint8)
    return {"image": images} | {name: jax.ShapeDtypeStruct((size,), kind) for name, kind in kinds.items()}
