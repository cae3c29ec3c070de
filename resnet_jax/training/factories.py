"""Optimizer, schedule, loss and augmentation of a config."""

from functools import partial

import optax

from resnet_jax.data.augment import Augment, pad_crop_mirror, vary_color
from resnet_jax.data.statistics import color_components
from resnet_jax.models.import_by_name import import_by_name, is_import_name
from resnet_jax.training.config_sections import DataConfig, OptimizerConfig
from resnet_jax.training.optimizer import by_module, decay_on_plateau, sgd, warm_up_until
from resnet_jax.training.schedules import Schedule, step_decay
from resnet_jax.training.step import Loss, cross_entropy


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
    """Returns the schedule and the optimizer that the section `optimizer` of a config describes.

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
