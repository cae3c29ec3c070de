"""From a config to functions, data and devices. Values go down from here; the config goes no further."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import optax
from ml_collections import ConfigDict

from resnet_jax.data.augment import normalise, pad_crop_mirror
from resnet_jax.data.batches import EvaluationBatches, TrainBatches
from resnet_jax.data.sources import Source, SyntheticSource, image_mean, open_source
from resnet_jax.models import ResNet, create_model
from resnet_jax.parallel import AXIS_NAME, Mapping, choose_devices, create_mapping, prepare_backend, process_share
from resnet_jax.training.config import ConfigError
from resnet_jax.training.optimizer import decay_on_plateau, sgd, warm_up_until
from resnet_jax.training.schedules import Schedule, step_decay
from resnet_jax.training.state import TrainState, create_state
from resnet_jax.training.step import make_evaluation_step, make_train_step

SCANNED_DEPTH = 9
"""Blocks in a stage from which "auto" scans them."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A recipe made concrete: the functions, data and devices of a run."""

    model: nn.Module
    model_arguments: dict[str, Any]
    optimizer: optax.GradientTransformationExtraArgs
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
    }
    if not config.model.name.startswith("vgg"):  # These have no batch normalisation.
        arguments |= {"group_size": group_size, "variance": config.model.variance}
    arguments |= {name: config.model[name] for name in ("shortcut", "stride_on") if config.model[name]}
    model = looped(create_model(**arguments), scan=config.run.scan, remat=config.run.remat)
    schedule, optimizer = build_optimizer(config.optimizer)
    augment = pad_crop_mirror(pad=config.data.pad, mirror=config.data.mirror)
    spread = model.clone(axis_name=AXIS_NAME) if hasattr(model, "axis_name") else model
    train_step = make_train_step(
        spread,
        optimizer,
        augment,
        schedule=schedule,
        seed=config.seed,
        axis_name=AXIS_NAME,
        label_smoothing=config.optimizer.label_smoothing,
    )
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


def looped(model: nn.Module, *, scan: str, remat: int) -> nn.Module:
    """Returns the model with its identical blocks as loops, if `scan` is "yes", or "auto" and it is deep enough or `remat` is set.

    Raises:
        ConfigError: The model has no blocks to loop over.
    """
    wanted = scan == "yes" or remat > 0
    if not isinstance(model, ResNet):
        if wanted:
            raise ConfigError("config.run.scan and remat are for nets of blocks; this one has none: leave them at auto and 0")
        return model
    deep = scan == "auto" and max(model.stage_depths) >= SCANNED_DEPTH
    return model.clone(scan=wanted or deep, remat=remat)


def build_optimizer(options: ConfigDict) -> tuple[Schedule, optax.GradientTransformationExtraArgs]:
    """Returns the schedule and the optimiser that the section `optimizer` of a config describes."""
    schedule = step_decay(
        options.learning_rate,
        boundaries=options.boundaries,
        factor=options.factor,
        warmup_steps=options.warmup_steps,
        warmup_rate=options.warmup_rate,
    )
    factors = []
    if options.warmup_until_error:
        factors.append(warm_up_until(options.warmup_until_error, factor=options.warmup_rate / options.learning_rate))
    if options.plateau_patience:
        patience, window = options.plateau_patience, options.plateau_window
        factors.append(
            decay_on_plateau(factor=options.factor, patience=patience, window=window, threshold=options.plateau_threshold)
        )
    optimizer = sgd(
        schedule,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        decayed=options.decayed,
        momentum_form=options.momentum_form,
        gradient_clip=options.gradient_clip,
        rate_factors=tuple(factors),
    )
    return schedule, optimizer


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
