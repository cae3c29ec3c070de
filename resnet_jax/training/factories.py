"""Optimizer, schedule, loss and augmentation of a config."""

from functools import partial

import jax
import optax

from resnet_jax.data.augment import Augment, pad_crop_mirror, vary_color
from resnet_jax.data.statistics import color_components
from resnet_jax.models.import_by_name import calling, import_by_name, is_import_name
from resnet_jax.training.config_fields import ConfigError
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
        field = "config.optimizer.loss"
        loss: Loss = import_by_name(options.loss, field=field, directory=code_dir)
        form = "loss(logits [n, classes], labels int32 [n]) -> float [n]"
        with calling(options.loss, loss, field=field, form=form):
            logits, labels = jax.ShapeDtypeStruct((4, 3), "float32"), jax.ShapeDtypeStruct((4,), "int32")
            losses = jax.eval_shape(loss, logits, labels)
            if getattr(losses, "shape", None) != (4,):
                raise TypeError(f"of 4 images it returned {losses}")
        return loss
    return partial(cross_entropy, smoothing=options.label_smoothing)


def build_schedule(options: OptimizerConfig, code_dir: str | None = None) -> Schedule:
    """Returns the learning rate by step that the section `optimizer` of a config describes."""
    if options.schedule:
        field = "config.optimizer.schedule"
        found = import_by_name(options.schedule, field=field, directory=code_dir)
        schedule: Schedule = partial(found, learning_rate=options.learning_rate)
        form = f"schedule(step, learning_rate={options.learning_rate}) -> float"
        with calling(options.schedule, found, field=field, form=form):
            rate = jax.eval_shape(schedule, jax.ShapeDtypeStruct((), "int32"))
            if getattr(rate, "shape", None) != ():
                raise TypeError(f"at a step it returned {rate}")
        return schedule
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
        code_dir: Directory that is searched for the modules that it names.
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
        field = "config.optimizer.name"
        make = import_by_name(options.name, field=field, directory=code_dir)
        form = "optimizer(learning_rate=schedule) -> optax.GradientTransformation"
        with calling(options.name, make, field=field, form=form):
            made = make(learning_rate=schedule)
            if not isinstance(made, optax.GradientTransformation):
                raise TypeError(f"it returned a {type(made).__name__}")
        optimizer = optax.with_extra_args_support(optax.chain(made, *factors))
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


_OWN = ("momentum", "momentum_form", "weight_decay", "decay_mask", "gradient_clip", "trust_coefficient")
"""Fields of the package's own optimizers."""


def check_ignored_fields(options: OptimizerConfig) -> None:
    """Checks that no field is set that the chosen optimizer or schedule does not read.

    Raises:
        ConfigError: One is; the message says where the value belongs.
    """
    default = OptimizerConfig()
    ignored = [name for name in _OWN if getattr(options, name) != getattr(default, name)]
    if options.name == "sgd":
        ignored = [name for name in ignored if name == "trust_coefficient"]
    elif options.name == "lars":
        ignored = []
    if not ignored:
        return
    name = ignored[0]
    advice = (
        f"give it as an argument, {options.name.partition('(')[0]}(…), and " if ":" in options.name else ""
    )
    raise ConfigError(
        f"config.optimizer.{name} is {getattr(options, name)!r}, and the optimizer {options.name} does not "
        f"read it; {advice}leave the field at its default, {getattr(default, name)!r}"
    )
