"""The network of a config: its arguments, its form on devices and in training."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from resnet_jax.models import ScannedStage, model_class
from resnet_jax.models.import_by_name import calling, import_by_name, is_import_name
from resnet_jax.models.normalization import freeze_statistics, over_micro_batches
from resnet_jax.models.registry import ModelArguments
from resnet_jax.parallel import AXIS_NAME, prepare_backend
from resnet_jax.training.compilation_cache import keep_compiled_programs
from resnet_jax.training.config import Config
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.config_sections import OptimizerConfig
from resnet_jax.training.initial import check_patterns

SCANNED_DEPTH = 9  # Blocks in a stage from which "auto" scans them.

# Fields of the section `model` that are options of create_model where they are set.
MODEL_OPTIONS = ("shortcut", "stride_on", "block", "norm", "activation", "variants")


def prepare_jax(config: Config, *, processes: int = 1) -> None:
    """Sets the options of JAX that a config asks for; before JAX is used for the first time."""
    if config.run.compilation_cache:
        keep_compiled_programs()
    if config.model.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    prepare_backend(
        micro_batch_size(config), config.model.group_size, config.run.devices, processes=processes
    )


def model_arguments(config: Config, classes: int) -> ModelArguments:
    """Returns the arguments of `create_model` that the section `model` of a config describes."""
    options = config.model
    arguments: ModelArguments = {"name": options.name, "num_classes": classes, "dtype": options.dtype}
    if model_class(options.name).normalized:
        arguments |= {"group_size": options.group_size} | (
            {} if options.norm else {"variance": options.variance}
        )
    arguments |= {name: getattr(options, name) for name in MODEL_OPTIONS if getattr(options, name)}
    return arguments | (
        {"code_dir": config.run.code_dir} if any(map(is_import_name, arguments.values())) else {}
    )


def on_axis(model: nn.Module) -> nn.Module:
    """Returns the model with the axis that the global batch is mapped over, if it has normalization."""
    return model.clone(axis_name=AXIS_NAME) if model.normalized else model


def micro_batch_size(config: Config) -> int:
    """Returns the images that are computed at once: the batch, or with `run.accumulation` a part of it.

    Raises:
        ConfigError: The batch cannot be cut so, because of its size or of the groups of batch normalization.
    """
    parts, batch_size = config.run.accumulation or 1, config.batch_size
    if parts == 1:
        return batch_size
    legal = legal_accumulations(config)
    if parts not in legal:
        raise ConfigError(
            f"config.run.accumulation is {parts}; a part of the batch of {batch_size} must be whole groups "
            f"of batch normalization, of {_images_together(config)} images (config.model.group_size); "
            f"allowed are {', '.join(map(str, legal))}"
        )
    return batch_size // parts


def legal_accumulations(config: Config) -> list[int]:
    """Returns the values that `run.accumulation` may have, rising.

    A micro-batch is whole groups of batch normalization. If a group is the global batch, 1 alone is allowed.
    """
    batch_size, group = config.batch_size, _images_together(config)
    return [
        parts
        for parts in range(1, batch_size + 1)
        if parts == 1 or (batch_size % parts == 0 and batch_size // parts % group == 0)
    ]


def _images_together(config: Config) -> int:
    """Returns the number of images that a micro-batch must be a multiple of."""
    normalized = model_class(config.model.name).normalized
    return config.model.group_size or (config.batch_size if normalized else 1)


def with_scanned_stages(model: nn.Module, config: Config) -> nn.Module:
    """Returns the model with its identical blocks as loops, if `run.scan` or `run.remat` asks for it.

    "auto" scans deep networks.

    Fine-tuning tells blocks apart, by patterns and by where their weights come from: there, "auto" does not.

    Raises:
        ConfigError: The model has no blocks to loop over, or they must be distinguished.
    """
    wanted = config.run.scan == "yes" or config.run.remat is not None
    optimizer = config.optimizer
    apart = bool(config.initial.source or optimizer.frozen or optimizer.frozen_norm or optimizer.rate_factors)
    if not model.scannable:
        if wanted:
            raise ConfigError(
                "config.run.scan and remat are for nets of blocks; this one has none: leave them at auto "
                "and None"
            )
        return model
    if wanted and apart:
        raise ConfigError(
            "config.run.scan and remat make one loop of blocks that fine-tuning tells apart: leave them at "
            "auto and None"
        )
    deep = config.run.scan == "auto" and max(model.stage_depths) >= SCANNED_DEPTH
    if not (wanted or (deep and not apart)):
        return model
    return model.clone(stage=partial(ScannedStage, remat=config.run.remat or 0))


_NAMED = {
    "block": "block(filters=…, stride=…, conv=…, norm=…, activation=…, shortcut=…)(x), a Linen module",
    "norm": "norm(name=…)(x), a Linen module without other arguments",
    "activation": "activation(x) -> x",
    "shortcut": "shortcut(x, channels=…, stride=…, conv=…, norm=…)",
}


def check_named_parts(model: nn.Module, config: Config, *, image_shape: tuple[int, int, int]) -> None:
    """Builds the network in the abstract, if parts of it are the user's own.

    Raises:
        ModelError: It cannot be built; the parts and how they are called are named.
    """
    own = [name for name in _NAMED if is_import_name(getattr(config.model, name))]
    if not own:
        return
    value = getattr(config.model, own[0])
    function = import_by_name(value, field=f"config.model.{own[0]}", directory=config.run.code_dir)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    keys = {"params": jax.random.key(0), "examples": jax.random.key(1)}
    field = " or ".join(f"config.model.{name}" for name in own)
    with calling(value, function, field=field, form=_NAMED[own[0]]):
        jax.eval_shape(partial(model.init, train=False), keys, images)


def training_form(model: nn.Module, config: Config, *, image_shape: tuple[int, int, int]) -> nn.Module:
    """Returns the network that is trained: on the mapped axis, by micro-batches, with frozen normalizations.

    Frozen normalizations use their running statistics, and leave them as they are.

    Raises:
        ConfigError: A pattern means no module, or all of them.
    """
    check_named_parts(model, config, image_shape=image_shape)
    options = config.optimizer
    if options.frozen or options.rate_factors:
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        paths = list(flatten_dict(params, sep="/"))
        check_patterns(paths, frozen=options.frozen, rate_factors=options.rate_factors)
    model, patterns = on_axis(model), frozen_patterns(options)
    parts = config.run.accumulation or 1
    if parts > 1 and model.normalized:
        gather = partial(over_micro_batches, parts=parts)
        model = model.clone(norm=partial(model.norm, gather=gather))
    if patterns and model.normalized:
        model = model.clone(norm=partial(freeze_statistics, norm=model.norm, patterns=patterns))
    return model


def frozen_patterns(options: OptimizerConfig) -> tuple[str, ...]:
    """Returns patterns of the normalizations that the section `optimizer` of a config freezes."""
    return ("*",) if options.frozen_norm else tuple(options.frozen)
