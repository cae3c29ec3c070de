"""From a config to functions, data and devices. Values go down from here; the config goes no further."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from flax.traverse_util import flatten_dict

from resnet_jax.data.augment import Augment, normalize, pad_crop_mirror, vary_color
from resnet_jax.data.batches import EvaluationBatches, TrainBatches, reading_threads
from resnet_jax.data.catalog import check_classes, open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.errors import DataError
from resnet_jax.data.label_subset import with_labels
from resnet_jax.data.source import Source, SyntheticSource
from resnet_jax.data.statistics import color_components, image_mean
from resnet_jax.models import create_model, model_class
from resnet_jax.models.import_by_name import import_by_name, is_import_name
from resnet_jax.models.normalization import freeze_statistics, over_micro_batches
from resnet_jax.parallel import (
    AXIS_NAME,
    Mapping,
    choose_devices,
    create_mapping,
    prepare_backend,
    process_share,
)
from resnet_jax.training.config import Config
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.config_sections import DataConfig, OptimizerConfig
from resnet_jax.training.initial import Initial, check_patterns, read_initial
from resnet_jax.training.optimizer import by_module, decay_on_plateau, sgd, warm_up_until
from resnet_jax.training.schedules import Schedule, step_decay
from resnet_jax.training.state import TrainState, create_state
from resnet_jax.training.step import Loss, cross_entropy, make_evaluation_step, make_train_step

SCANNED_DEPTH = 9
"""Blocks in a stage from which "auto" scans them."""

MODEL_OPTIONS = ("shortcut", "stride_on", "block", "norm", "activation", "variants")
"""Fields of the section `model` that are options of create_model where they are set."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A recipe made concrete: the functions, data and devices of a run.

    `train_step` and `evaluation_step` are mapped over the devices. `make_step(seed=…)` gives the training step of one device, the
    seed of which may be traced; `sum_over_device` is the evaluation step of one.
    """

    model: nn.Module
    model_arguments: dict[str, Any]
    optimizer: optax.GradientTransformationExtraArgs
    mapping: Mapping
    make_step: Callable[..., Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]]
    sum_over_device: Callable[[TrainState, Any], dict[str, jax.Array]]
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
    evaluation_step: Callable[[TrainState, Any], dict[str, jax.Array]]
    train: Source
    train_batches: TrainBatches
    test_batches: EvaluationBatches
    mean: str
    seed: int
    workers: int
    initial: Initial | None
    head: str

    def initial_state(self) -> TrainState:
        """Returns the state before the first step, in host memory."""
        shape = self.train.image_shape
        create = partial(create_state, self.model, self.optimizer, seed=self.seed, image_shape=shape)
        if self.initial is None:
            return jax.device_get(create(image_mean=image_mean(self.train, self.mean, workers=self.workers)))
        state = jax.device_get(create(image_mean=np.zeros(3, np.float32)))
        return self.initial.begin(state, head=self.head, image_shape=shape)


def prepare_jax(config: Config, *, processes: int = 1) -> None:
    """Sets the options of JAX that a config asks for; before JAX is used for the first time."""
    if config.model.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    prepare_backend(part_size(config), config.model.group_size, config.run.devices, processes=processes)


def build_experiment(config: Config, *, begun: epath.PathLike | None = None) -> Experiment:
    """Returns the functions, data and devices that a config describes.

    Args:
        config: Resolved.
        begun: The workdir of a run that goes on; its own weights stand for those that it began with, which may be gone.
    """
    group_size = config.model.group_size
    devices = choose_devices(part_size(config), group_size, config.run.devices)
    mapping = create_mapping(config.run.mapping, devices)
    train, test = (
        open_split(config, config.data.train_split),
        open_split(config, config.data.test_split, test=True),
    )
    check_classes(train, test)
    arguments = model_arguments(config, len(train.class_names))
    origin, head = (begun, "kept") if begun else (config.initial.source, config.initial.head)
    initial = read_initial(origin) if config.initial.source and origin else None
    if initial:
        arguments = initial.model_arguments(arguments, head=head)
    model = looped(create_model(**arguments), config)
    optimizer, make_step = build_training(config, model, image_shape=train.image_shape)
    spread = spread_over(model)
    evaluation_step = make_evaluation_step(spread, normalize, axis_name=AXIS_NAME)
    share = process_share(config.batch_size, devices, parts=config.run.accumulation)
    share_of_part = process_share(part_size(config), devices)
    workers = reading_threads(config.run.workers)
    return Experiment(
        model=model,
        model_arguments=arguments,
        optimizer=optimizer,
        mapping=mapping,
        make_step=make_step,
        sum_over_device=evaluation_step,
        train_step=mapping.map(make_step(seed=config.seed), donate=True),
        evaluation_step=mapping.map(evaluation_step, donate=False),
        train=train,
        train_batches=TrainBatches(train, config.batch_size, config.seed, share),
        test_batches=EvaluationBatches(
            test, part_size(config), share_of_part, workers, config.run.read_ahead
        ),
        mean=config.data.mean,
        seed=config.seed,
        workers=workers,
        initial=initial,
        head=head,
    )


def model_arguments(config: Config, classes: int) -> dict[str, Any]:
    """Returns the arguments of `create_model` that the section `model` of a config describes."""
    options = config.model
    arguments = {"name": options.name, "num_classes": classes, "dtype": options.dtype}
    if model_class(options.name).normalized:
        arguments |= {"group_size": options.group_size} | (
            {} if options.norm else {"variance": options.variance}
        )
    arguments |= {name: options[name] for name in MODEL_OPTIONS if options[name]}
    return arguments | (
        {"code_dir": config.run.code_dir} if any(map(is_import_name, arguments.values())) else {}
    )


def build_training(
    config: Config, model: nn.Module, *, image_shape: tuple[int, int, int]
) -> tuple[
    optax.GradientTransformationExtraArgs,
    Callable[..., Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]],
]:
    """Returns the optimiser, and what makes of a `seed` the training step of one device; needs no data and no devices."""
    schedule, optimizer = build_optimizer(config.optimizer, config.run.code_dir)
    spread = spread_over(model)
    if config.run.accumulation > 1 and model.normalized:
        gather = partial(over_micro_batches, parts=config.run.accumulation)
        spread = spread.clone(norm=partial(spread.norm, gather=gather))
    make_step = partial(
        make_train_step,
        _with_frozen(model, spread, config.optimizer, image_shape=image_shape),
        optimizer,
        build_augmentation(config.data),
        schedule=schedule,
        axis_name=AXIS_NAME,
        loss=build_loss(config.optimizer, config.run.code_dir),
        accumulation=config.run.accumulation,
    )
    return optimizer, make_step


def spread_over(model: nn.Module) -> nn.Module:
    """Returns the model with the axis that the global batch is mapped over, if it has normalisation."""
    return model.clone(axis_name=AXIS_NAME) if model.normalized else model


def part_size(config: Config) -> int:
    """Returns the images that are computed at once: the batch, or with `run.accumulation` a part of it.

    Raises:
        ConfigError: The batch cannot be cut so, because of its size or of the groups of batch normalisation.
    """
    parts, batch_size, group_size = config.run.accumulation, config.batch_size, config.model.group_size
    if parts == 1:
        return batch_size
    group = group_size or (batch_size if model_class(config.model.name).normalized else 1)
    if batch_size % parts or batch_size // parts % group:
        legal = [n for n in range(1, batch_size + 1) if batch_size % n == 0 and batch_size // n % group == 0]
        raise ConfigError(
            f"config.run.accumulation is {parts}; a part of the batch of {batch_size} must be whole groups of batch normalisation, "
            f"of {group} images (config.model.group_size); allowed are {', '.join(map(str, legal))}"
        )
    return batch_size // parts


def looped(model: nn.Module, config: Config) -> nn.Module:
    """Returns the model with its identical blocks as loops, if `run.scan` is "yes", or "auto" and it is deep or `run.remat` is set.

    Fine-tuning tells blocks apart, by patterns and by where their weights come from: there, "auto" does not.

    Raises:
        ConfigError: The model has no blocks to loop over, or they must be told apart.
    """
    wanted = config.run.scan == "yes" or config.run.remat is not None
    optimizer = config.optimizer
    apart = bool(config.initial.source or optimizer.frozen or optimizer.frozen_norm or optimizer.rate_factors)
    if not model.scannable:
        if wanted:
            raise ConfigError(
                "config.run.scan and remat are for nets of blocks; this one has none: leave them at auto and 0"
            )
        return model
    if wanted and apart:
        raise ConfigError(
            "config.run.scan and remat make one loop of blocks that fine-tuning tells apart: leave them at auto and 0"
        )
    deep = config.run.scan == "auto" and max(model.stage_depths) >= SCANNED_DEPTH
    return model.clone(scan=wanted or (deep and not apart), remat=config.run.remat or 0)


def _with_frozen(
    model: nn.Module, spread: nn.Module, options: OptimizerConfig, *, image_shape: tuple[int, int, int]
) -> nn.Module:
    """Returns the net that is trained: its frozen normalisations use their running statistics, and leave them.

    Raises:
        ConfigError: A pattern means no module, or all of them.
    """
    if options.frozen or options.rate_factors:
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        check_patterns(
            list(flatten_dict(params, sep="/")), frozen=options.frozen, rate_factors=options.rate_factors
        )
    patterns = frozen_patterns(options)
    return (
        spread.clone(norm=partial(freeze_statistics, norm=spread.norm, patterns=patterns))
        if patterns and model.normalized
        else spread
    )


def frozen_patterns(options: OptimizerConfig) -> tuple[str, ...]:
    """Returns patterns of the normalisations that the section `optimizer` of a config freezes."""
    return ("*",) if options.frozen_norm else tuple(options.frozen)


def build_augmentation(options: DataConfig) -> Augment:
    """Returns the augmentation on the device that the section `data` of a config describes."""
    augment = pad_crop_mirror(pad=options.pad, mirror=options.mirror)
    if not options.color:
        return augment
    color = color_components(options.color)
    return vary_color(augment, color.eigenvalues, color.eigenvectors, deviation=options.color_deviation)


def build_loss(options: OptimizerConfig, code_dir: str | None = None) -> Loss:
    """Returns the loss of each example that the section `optimizer` of a config describes."""
    if options.loss:
        return import_by_name(options.loss, field="config.optimizer.loss", directory=code_dir)
    return partial(cross_entropy, smoothing=options.label_smoothing)


def build_schedule(options: OptimizerConfig, code_dir: str | None = None) -> Schedule:
    """Returns the learning rate by step that the section `optimizer` of a config describes."""
    if options.schedule:
        schedule = import_by_name(options.schedule, field="config.optimizer.schedule", directory=code_dir)
        return partial(schedule, learning_rate=options.learning_rate)
    return step_decay(
        options.learning_rate,
        boundaries=options.boundaries,
        factor=options.factor,
        warmup_steps=options.warmup_steps,
        warmup_rate=options.warmup_rate,
        warmup_form=options.warmup_form,
    )


def build_optimizer(
    options: OptimizerConfig, code_dir: str | None = None
) -> tuple[Schedule, optax.GradientTransformationExtraArgs]:
    """Returns the schedule and the optimiser that the section `optimizer` of a config describes.

    Args:
        options: The section.
        code_dir: Where the modules that it names are looked for.
    """
    schedule = build_schedule(options, code_dir)
    factors = []
    if options.warmup_until_error:
        factors.append(
            warm_up_until(options.warmup_until_error, factor=options.warmup_rate / options.learning_rate)
        )
    if options.plateau_patience:
        patience, window = options.plateau_patience, options.plateau_window
        factors.append(
            decay_on_plateau(
                factor=options.factor, patience=patience, window=window, threshold=options.plateau_threshold
            )
        )
    if is_import_name(options.name):
        make = import_by_name(options.name, field="config.optimizer.name", directory=code_dir)
        optimizer = optax.with_extra_args_support(optax.chain(make(learning_rate=schedule), *factors))
    else:
        optimizer = sgd(
            schedule,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            decay_mask=options.decay_mask,
            momentum_form=options.momentum_form,
            gradient_clip=options.gradient_clip,
            trust_coefficient=options.trust_coefficient if options.name == "lars" else None,
            rate_factors=tuple(factors),
        )
    if options.frozen or options.rate_factors:
        optimizer = by_module(optimizer, frozen=options.frozen, rate_factors=options.rate_factors)
    return schedule, optimizer


def open_split(config: Config, split: str, *, test: bool = False) -> Source:
    """Opens a split of the config's data, with its labels that the config names."""
    data, examples = config.data, config.data.synthetic_examples
    if data.source is None:
        raise DataError("the data of this net is not known; name it with --config.data.source, or --data")
    decoding = None
    if data.image_size:
        size, scales, areas = data.image_size, data.scales, data.areas
        decoding = DecodeOptions(
            data.crop, size=size, scales=scales, areas=areas, test_scale=data.test_scale, corrupt=data.corrupt
        )
    synthetic = SyntheticSource(
        examples=max(1, examples // 8) if test else examples,
        image_size=config.data.synthetic_image_size,
        classes=config.data.synthetic_classes,
        seed=int(test),
    )
    source = open_source(
        data.source,
        split,
        data_dir=config.run.data_dir,
        synthetic=synthetic,
        decoding=decoding,
    )
    return with_labels(source, config.data.labels) if config.data.labels else source
