"""The fields of a config, their defaults and what they mean; which of them make the experiment and which only its running.

Everything under `run` is *operation*: it may change when a run is resumed. Everything else is *recipe*: another value is
another experiment, and a workdir keeps one.
"""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.data.choices import CHANNEL, CORRUPT, CROPS, IMAGENET, PIXEL, STATISTICS_SUFFIX
from resnet_jax.errors import UsageError
from resnet_jax.models.import_by_name import IMPORT_FORM, is_import_name
from resnet_jax.parallel import MAPPINGS
from resnet_jax.training.optimizer import DECAYED, FACTOR, MOMENTUM_FORMS, OPTIMIZERS
from resnet_jax.training.profile import PROFILED
from resnet_jax.training.schedules import WARMUP_FORMS

FORMAT_VERSION = 1
"""Of config.json and of checkpoints."""

DTYPES = ("float32", "bfloat16", "float64")
SCANS = ("auto", "yes", "no")
HEADS = ("fresh", "kept")


class ConfigError(UsageError, ValueError):
    """A field of a config, or two that contradict each other; the message names field, value and what is allowed."""


def base_config() -> ConfigDict:
    """Returns every field at its default, for a recipe to set those that it is about; other fields cannot be added."""
    config = ConfigDict(
        {
            "seed": 0,
            "batch_size": 128,  # Global: the sum over all devices.
            "model": {
                "name": "cifar_resnet20",
                "dtype": "float32",  # Of the computation: float32, bfloat16 or float64.
                "shortcut": "",  # A, B or C (§3.3), or module:function; empty is the family's: A for CIFAR, B for ImageNet.
                "stride_on": "",  # Of bottlenecks: 1x1 or 3x3; empty is the paper's 1x1.
                "group_size": 0,  # Images per group of batch normalisation; 0 is the whole global batch.
                "variance": "biased",  # Of the running statistics: biased or unbiased.
                "block": "",  # module:class of your own (docs/variants.md); empty is the family's.
                "norm": "",  # module:function that makes a normalisation; empty is batch normalisation.
                "activation": "",  # module:function, such as flax.linen:gelu; empty is ReLU.
                "variants": (),  # Names of `resnet-jax list --variants`, in order: ("preactivation", "stochastic_depth:0.8").
            },
            "data": {
                "source": "digits",  # digits, synthetic, an image folder or prepared set (path or URL), or a TFDS set.
                "train_split": "train",
                "test_split": "test",
                "mean": "pixel",  # Subtracted: pixel or channel (computed), imagenet (published), or a file of statistics.
                "pad": 0,  # Pixels that a training image is moved by at most.
                "mirror": False,  # Mirror half of the training images.
                "labels": (),  # Only these of the set, numbered from 0 in this order; empty is all.
                "colour": "",  # Principal components that colours are varied along: imagenet (published), or a file; empty is off.
                "colour_deviation": 0.1,  # Of the coefficients (§3.4).
                "image_size": 0,  # Of the crop that is seen of images of any size; 0: images of one size, read into memory.
                "crop": "scale",  # In training: scale (§3.4), resized (area and aspect ratio, arXiv 1409.4842), or centre.
                "scales": (256, 480),  # Range of the shorter side, for scale.
                "areas": (0.08, 1.0),  # Range of the share of the area, for resized.
                "test_scale": 256,  # Shorter side in evaluation, and for centre.
                "corrupt": "error",  # What becomes of an image that cannot be decoded: error, or skip (it is reported).
                "synthetic_examples": 4096,  # Of the synthetic training split; the test split has an eighth.
                "synthetic_image_size": 32,
                "synthetic_classes": 10,
            },
            "initial": {
                "workdir": "",  # Of the run or import whose weights the net begins with; empty is random ones.
                "head": "fresh",  # The last layer: fresh, or kept where the classes are the same.
            },
            "images": {  # What prediction and exported programs make of a picture, where it is not what evaluation makes of it.
                "resize": 0,  # Shorter side in pixels; 0 is data.test_scale.
                "crop": 0,  # Side of the centre crop in pixels; 0 is data.image_size, or the one size that the data has.
                "class_names": (),  # By label; empty are those of the data.
            },
            "optimizer": {
                "name": "sgd",  # sgd; lars, every kernel's rate by its norm; or module:function, such as optax:adamw(b1=0.8).
                "trust_coefficient": 0.001,  # Of lars.
                "schedule": "",  # module:function of (step, learning_rate=…); empty is the steps of boundaries and warm-up below.
                "loss": "",  # module:function from logits and labels to a loss for each example; empty is cross-entropy.
                "learning_rate": 0.1,
                "boundaries": (),  # Steps at which the rate is multiplied by the factor.
                "factor": 0.1,
                "warmup_steps": 0,  # First steps, at the warm-up rate.
                "warmup_rate": 0.01,
                "warmup_form": "constant",  # constant, or linear: from the warm-up rate to the rate, in equal steps.
                "momentum": 0.9,
                "weight_decay": 1e-4,
                "decayed": "all",  # Parameters that decay: all, or kernels.
                "momentum_form": "caffe",  # caffe (the rate inside the momentum, the paper) or pytorch (outside).
                "warmup_until_error": 0.0,  # Keep the warm-up rate until the training error is below this; 0 is off.
                "plateau_patience": 0,  # Decay after so many windows without progress, instead of at boundaries; 0 is off.
                "plateau_window": 1000,  # Steps that the training error is averaged over.
                "plateau_threshold": 0.01,  # Relative fall of the error that is progress.
                "gradient_clip": 0.0,  # Largest norm of the gradient; 0 is off.
                "label_smoothing": 0.0,
                "frozen": (),  # Patterns of modules that stay as they are, statistics too: ("stem","stage[12]").
                "frozen_norm": False,  # Normalise with the running statistics in training too, in every layer, and leave them.
                "rate_factors": (),  # Factors of the rate by pattern: ("stage3=0.1","head=10"); the first that matches counts.
            },
            "run": {
                "steps": 300,  # Updates in all; a finished run goes on when it is raised.
                "mapping": "auto",  # auto, pmap or shard_map.
                "devices": 0,  # 0 takes all, and on CPU one per core.
                "accumulation": 1,  # Parts that a batch is computed in, one after the other, where the memory is not for all of it.
                "scan": "auto",  # The identical blocks of a stage as one loop: yes, no, or auto, which does so for deep nets.
                "remat": 0,  # Blocks of that loop that are computed again together in the backward pass, to save memory; 0 is none.
                "log_every": 1,  # Steps from one record in metrics.jsonl to the next.
                "evaluate_every": 50,  # Steps; the end is evaluated always.
                "checkpoint_every": 50,  # Steps; the end is saved always.
                "fallback": True,  # If the newest checkpoint is damaged go on from the one before, with a warning; otherwise stop.
                "keep": 2,  # Newest checkpoints kept, beside the best.
                "workers": 1,  # Threads that read batches; 0 is one per core.
                "worker_processes": 0,  # Processes that read, each with so many threads; 0 is the training process itself.
                "read_ahead": 4,  # Batches read ahead.
                "data_dir": "",  # Where TFDS keeps its sets; empty is TFDS_DATA_DIR or ~/tensorflow_datasets.
                "tensorboard": True,
                "code_dir": "",  # Where modules that fields name are looked for, beside Python's path and the current directory.
                "profile": "",  # Steps that are profiled into the workdir: "10-15"; empty is none.
            },
        },
        type_safe=True,
    )
    return config.lock()


def resolve(config: ConfigDict) -> ConfigDict:
    """Returns the config with the fields that it leaves out at their defaults.

    Raises:
        ConfigError: It has a field that does not exist, one of the wrong type, or a value that is not allowed.
    """
    resolved = base_config()
    try:
        resolved.update(config)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(" ".join(str(error).strip("'\"").split())) from error
    validate(resolved)
    return resolved


def validate(config: ConfigDict) -> None:
    """Checks every field by itself; what depends on data and devices is checked where these are known.

    Raises:
        ConfigError: Names the first field that does not hold.
    """
    positive = (
        "batch_size run.steps run.accumulation run.log_every run.evaluate_every run.checkpoint_every run.keep run.read_ahead "
        "data.test_scale data.synthetic_examples data.synthetic_image_size data.synthetic_classes optimizer.plateau_window "
        "optimizer.factor optimizer.learning_rate optimizer.trust_coefficient"
    )
    not_negative = (
        "seed run.devices run.remat run.workers run.worker_processes model.group_size data.pad data.image_size "
        "data.colour_deviation images.resize images.crop optimizer.momentum optimizer.weight_decay "
        "optimizer.warmup_steps optimizer.warmup_rate optimizer.plateau_patience optimizer.gradient_clip"
    )
    _check(config, positive.split(), lambda value: value > 0, "a number above 0")
    _check(config, not_negative.split(), lambda value: value >= 0, "0 or more")
    below_one = "optimizer.momentum optimizer.factor optimizer.label_smoothing optimizer.warmup_until_error"
    _check(config, below_one.split(), lambda value: 0 <= value < 1, "0 or more and less than 1")
    _check(config, ["optimizer.plateau_threshold"], lambda value: 0 < value < 1, "between 0 and 1")
    for path, allowed in {
        "model.dtype": DTYPES,
        "run.mapping": MAPPINGS,
        "run.scan": SCANS,
        "data.crop": CROPS,
        "data.corrupt": CORRUPT,
        "optimizer.warmup_form": WARMUP_FORMS,
        "optimizer.decayed": DECAYED,
        "initial.head": HEADS,
        "optimizer.momentum_form": MOMENTUM_FORMS,
    }.items():
        _check(config, [path], allowed.__contains__, "one of " + ", ".join(allowed))
    _validate_images(config)
    _check(config, ["optimizer.boundaries"], _rises, "rising steps above 0")
    _check(
        config,
        ["run.profile"],
        lambda v: not v or bool(PROFILED.fullmatch(v)),
        "empty, or the first and the last step: 10-15",
    )
    if config.run.remat and config.run.scan == "no":
        raise ConfigError(
            "config.run.remat recomputes blocks of a loop, and config.run.scan is no; leave the one or the other"
        )
    rule = "patterns with a factor of 0 or more, such as ('stage[12]=0.1', 'head=10')"
    _check(config, ["optimizer.rate_factors"], lambda values: all(map(FACTOR.fullmatch, values)), rule)
    _check(
        config,
        ["images.resize"],
        lambda value: value == 0 or value >= config.images.crop,
        "0, or images.crop or more",
    )
    optimizer = config.optimizer
    if optimizer.boundaries and optimizer.plateau_patience:
        raise ConfigError(
            "config.optimizer has boundaries and a plateau_patience: the rate decays at the one or on the other"
        )
    if optimizer.name not in OPTIMIZERS and not is_import_name(optimizer.name):
        raise ConfigError(
            f"config.optimizer.name is {optimizer.name!r}; it must be {', '.join(OPTIMIZERS)} or a function: {IMPORT_FORM}"
        )
    if optimizer.schedule and (optimizer.boundaries or optimizer.warmup_steps):
        raise ConfigError(
            "config.optimizer has a schedule, and boundaries or warmup_steps: the rate is by the one or by the other"
        )
    if optimizer.loss and optimizer.label_smoothing:
        raise ConfigError(
            "config.optimizer has a loss of its own and label_smoothing, which is of cross-entropy; leave one out"
        )
    if optimizer.warmup_until_error and optimizer.warmup_steps:
        raise ConfigError(
            "config.optimizer has warmup_steps and warmup_until_error: the warm-up ends by the one or the other"
        )


def _validate_images(config: ConfigDict) -> None:
    data, file = config.data, f"a {STATISTICS_SUFFIX} file of `resnet-jax statistics`"
    means, colours = (PIXEL, CHANNEL, IMAGENET), ("", IMAGENET)
    _check(
        config,
        ["data.mean"],
        lambda v: v in means or v.endswith(STATISTICS_SUFFIX),
        f"one of {', '.join(means)}, or {file}",
    )
    _check(
        config,
        ["data.colour"],
        lambda v: v in colours or v.endswith(STATISTICS_SUFFIX),
        f"empty, {IMAGENET}, or {file}",
    )
    least = max(1, data.image_size)
    _check(
        config,
        ["data.scales"],
        lambda v: len(v) == 2 and least <= v[0] <= v[1],
        f"two rising sizes from {least} on",
    )
    _check(
        config,
        ["data.areas"],
        lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1,
        "two rising shares above 0 and up to 1",
    )
    _check(
        config, ["data.test_scale"], lambda v: v >= data.image_size, f"image_size {data.image_size} or more"
    )


def _rises(steps: tuple[int, ...]) -> bool:
    return all(before < after for before, after in pairwise((0, *steps)))


def _check(config: ConfigDict, paths: list[str], holds: Callable[[Any], bool], allowed: str) -> None:
    for path in paths:
        value = config
        for part in path.split("."):
            value = value[part]
        if not holds(value):
            raise ConfigError(f"config.{path} is {value!r}; it must be {allowed}")


def names_code(config: ConfigDict) -> bool:
    """Tells whether the config names functions or classes of modules."""
    return any(
        map(
            is_import_name,
            [*config.model.values(), *(config.optimizer[field] for field in ("name", "schedule", "loss"))],
        )
    )


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as JSON has it: tuples become lists."""
    return json.loads(json.dumps(config.to_dict()))


def recipe_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns a line for each field of the recipe, given as JSON, that differs: `optimizer.learning_rate: 0.1 -> 0.2`.

    A field that did not exist yet when the old config was written had its default.
    """
    before, after = config_fields(old), flatten(new)
    names = sorted(name for name in before | after if not name.startswith("run."))
    missing = "(absent)"
    pairs = [(name, before.get(name, missing), after.get(name, missing)) for name in names]
    return [f"{name}: {a} -> {b}" for name, a, b in pairs if a != b]


def config_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config, given as JSON, by path (`optimizer.learning_rate`); those that it lacks at their defaults."""
    return flatten(to_json(base_config())) | flatten(config)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the fields of a config, given as JSON, by path, and no others."""
    flat = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
