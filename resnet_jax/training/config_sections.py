"""The sections of a config. `resnet-jax config` prints them, docs/config.md is made of them."""

import dataclasses
import re

from resnet_jax.data.choices import CHANNEL, CORRUPT, CROPS, PIXEL, PUBLISHED, STATISTICS_SUFFIX
from resnet_jax.training.config_fields import (
    ABOVE_ZERO,
    BELOW_ONE,
    FACTOR_BELOW_ONE,
    NOT_NEGATIVE,
    RISING_STEPS,
    Allowed,
    Section,
    one_of,
    operation,
    recipe,
)

FACTOR = re.compile(r"(?P<pattern>[^=]+)=(?P<factor>\d+(\.\d*)?([eE][-+]?\d+)?)")
"""A factor of the rate for the modules that a pattern means: "stage[12]=0.1"."""
PROFILED = re.compile(r"([1-9]\d*)-([1-9]\d*)")
STATISTICS_FILE = f"a {STATISTICS_SUFFIX} file of `resnet-jax statistics`"


@dataclasses.dataclass
class ModelConfig(Section):
    """The network."""

    prefix = "model."
    name: str = recipe("cifar_resnet20", "Network; `resnet-jax list` prints the names.")
    dtype: str = recipe(
        "float32",
        "Dtype of the computation. Parameters and statistics are float32 (float64 for float64).",
        one_of("float32", "bfloat16", "float64"),
    )
    shortcut: str | None = recipe(
        None,
        "Shortcut: A, B or C (§3.3), or A_centered. None is the family's: A for CIFAR, B for ImageNet.",
        code=True,
    )
    stride_on: str | None = recipe(
        None, "Convolution of a bottleneck that strides: 1x1 or 3x3. None is the paper's 1x1."
    )
    group_size: int | None = recipe(
        None,
        "Images per group of batch normalization (ghost batch norm). None is the global batch.",
        ABOVE_ZERO,
    )
    variance: str = recipe(
        "biased", "Running variance that batch normalization keeps.", one_of("biased", "unbiased")
    )
    block: str | None = recipe(None, "Your own block (docs/variants.md). None is the family's.", code=True)
    norm: str | None = recipe(
        None, "Factory of normalization layers. None is batch normalization.", code=True
    )
    activation: str | None = recipe(None, "Activation, such as flax.linen:gelu. None is ReLU.", code=True)
    variants: tuple[str, ...] = recipe(
        (), "Variants by name, in order (`resnet-jax list --variants`), such as ('stochastic_depth:0.8',)."
    )


@dataclasses.dataclass
class DataConfig(Section):
    """The dataset and how its images are read."""

    prefix = "data."
    source: str | None = recipe(
        "digits",
        "Dataset: digits, synthetic, an image folder or a prepared set (path or URL), or a TFDS name. None "
        "is unknown, as for imported weights.",
    )
    train_split: str = recipe("train", "Training split: a folder's name, or in TFDS notation.")
    test_split: str = recipe("test", "Test split.")
    mean: str = recipe(
        PIXEL,
        "Mean that is subtracted: per pixel or per channel of the training split, ImageNet's published one, "
        "or a file.",
        Allowed(
            lambda value: value in (PIXEL, CHANNEL, PUBLISHED) or value.endswith(STATISTICS_SUFFIX),
            f"one of {PIXEL}, {CHANNEL}, {PUBLISHED}, or {STATISTICS_FILE}",
        ),
    )
    pad: int = recipe(0, "Pixels that a training image is shifted by at most.", NOT_NEGATIVE)
    mirror: bool = recipe(False, "Mirror half of the training images.")
    labels: tuple[int, ...] | None = recipe(
        None, "Keep only these labels, renumbered from 0 in this order. None keeps all."
    )
    color: str | None = recipe(
        None,
        "Principal components for color augmentation (§3.4): ImageNet's published ones, or a file. None is "
        "off.",
        Allowed(
            lambda value: value == PUBLISHED or value.endswith(STATISTICS_SUFFIX),
            f"{PUBLISHED}, or {STATISTICS_FILE}",
        ),
    )
    color_deviation: float = recipe(0.1, "Standard deviation of the color coefficients (§3.4).", NOT_NEGATIVE)
    image_size: int | None = recipe(
        None,
        "Side in pixels of the crops of images of any size. None: images of one size, read into memory.",
        ABOVE_ZERO,
    )
    crop: str = recipe(
        "scale",
        "Training crop: scale (§3.4), resized (random area and aspect ratio, arXiv 1409.4842), or center.",
        one_of(*CROPS),
    )
    scales: tuple[int, int] = recipe((256, 480), "Range in pixels of the shorter side, for crop=scale.")
    areas: tuple[float, float] = recipe(
        (0.08, 1.0),
        "Range of the share of the image's area, for crop=resized.",
        Allowed(lambda v: 0 < v[0] <= v[1] <= 1, "two rising shares above 0 and up to 1"),
    )
    test_scale: int = recipe(256, "Shorter side in pixels in evaluation, and for crop=center.", ABOVE_ZERO)
    corrupt: str = recipe(
        "error",
        "What happens to an image that cannot be decoded: error, or skip and report it.",
        one_of(*CORRUPT),
    )
    synthetic_examples: int = recipe(
        4096, "Training examples of source=synthetic; the test split has an eighth.", ABOVE_ZERO
    )
    synthetic_image_size: int = recipe(32, "Side in pixels of synthetic images.", ABOVE_ZERO)
    synthetic_classes: int = recipe(10, "Classes of synthetic images.", ABOVE_ZERO)


@dataclasses.dataclass
class OptimizerConfig(Section):
    """The optimizer, its schedule and the loss."""

    prefix = "optimizer."
    name: str = recipe(
        "sgd",
        "Optimizer: sgd, lars (layer-wise rates), or code such as optax:adamw(b1=0.8).",
        one_of("sgd", "lars", code=True),
        code=True,
    )
    trust_coefficient: float = recipe(0.001, "Trust coefficient of lars (arXiv 1708.03888).", ABOVE_ZERO)
    schedule: str | None = recipe(
        None,
        "Learning-rate schedule, a function of (step, learning_rate=…). None is the step decay below.",
        code=True,
    )
    loss: str | None = recipe(
        None, "Loss per example, a function of logits and labels. None is cross-entropy.", code=True
    )
    learning_rate: float = recipe(0.1, "Learning rate.", ABOVE_ZERO)
    boundaries: tuple[int, ...] = recipe(
        (), "Steps at which the learning rate is multiplied by the factor.", RISING_STEPS
    )
    factor: float = recipe(0.1, "Factor of the learning rate at a boundary or plateau.", FACTOR_BELOW_ONE)
    warmup_steps: int = recipe(0, "Steps of warm-up.", NOT_NEGATIVE)
    warmup_rate: float = recipe(0.01, "Learning rate of the warm-up, or that it starts from.", NOT_NEGATIVE)
    warmup_form: str = recipe(
        "constant", "Warm-up: constant, or linear up to the learning rate.", one_of("constant", "linear")
    )
    momentum: float = recipe(0.9, "Momentum.", BELOW_ONE)
    weight_decay: float = recipe(1e-4, "Weight decay (the factor of w in the gradient).", NOT_NEGATIVE)
    decay_mask: str = recipe("all", "Parameters that decay.", one_of("all", "kernels"))
    momentum_form: str = recipe(
        "caffe",
        "Momentum with the learning rate inside (caffe, the paper's: LR-coupled) or outside (pytorch).",
        one_of("caffe", "pytorch"),
    )
    warmup_until_error: float | None = recipe(
        None, "Keep the warm-up rate until the training error is below this. None is off.", FACTOR_BELOW_ONE
    )
    plateau_patience: int | None = recipe(
        None,
        "Windows without progress after which the rate decays, instead of boundaries. None is off.",
        ABOVE_ZERO,
    )
    plateau_window: int = recipe(1000, "Steps that the training error is averaged over.", ABOVE_ZERO)
    plateau_threshold: float = recipe(
        0.01, "Relative fall of the training error that counts as progress.", FACTOR_BELOW_ONE
    )
    gradient_clip: float | None = recipe(
        None, "Largest norm of the gradient (gradient clipping). None is off.", ABOVE_ZERO
    )
    label_smoothing: float = recipe(0.0, "Label smoothing (arXiv 1512.00567, §7).", BELOW_ONE)
    frozen: tuple[str, ...] = recipe(
        (), "Patterns of modules that are not trained, statistics included: ('stem','stage[12]')."
    )
    frozen_norm: bool = recipe(
        False,
        "Normalize with the running statistics in training too, in every layer, and do not update them.",
    )
    rate_factors: tuple[str, ...] = recipe(
        (),
        "Factors of the learning rate by module pattern: ('stage3=0.1','head=10'); the first match counts.",
        Allowed(
            lambda values: all(map(FACTOR.fullmatch, values)),
            "patterns with a factor of 0 or more, such as ('stage[12]=0.1', 'head=10')",
        ),
    )


@dataclasses.dataclass
class RunConfig(Section):
    """How the run is carried out; all of these may change when it is resumed."""

    prefix = "run."
    steps: int = operation(
        300, "Total number of updates; a finished run continues when this is raised.", ABOVE_ZERO
    )
    epochs: float | None = operation(
        None,
        "Length in epochs, in place of steps: recipes count it in steps, and scale their boundaries.",
        ABOVE_ZERO,
    )
    mapping: str = operation(
        "auto", "How the step is mapped over devices.", one_of("auto", "pmap", "shard_map")
    )
    devices: int | None = operation(None, "Devices to use. None is all, and one per core on CPU.", ABOVE_ZERO)
    accumulation: int | None = operation(
        None,
        "Micro-batches that a batch is computed in (gradient accumulation), to save memory. None is 1, and "
        "on resuming as many as keep the images that a device holds at once.",
        ABOVE_ZERO,
    )
    scan: str = operation(
        "auto",
        "Run the identical blocks of a stage as one loop. auto does so for deep networks.",
        one_of("auto", "yes", "no"),
    )
    remat: int | None = operation(
        None,
        "Blocks of that loop that are recomputed together in the backward pass. None stores all.",
        ABOVE_ZERO,
    )
    log_every: int = operation(1, "Steps between records in metrics.jsonl.", ABOVE_ZERO)
    evaluate_every: int = operation(
        50, "Steps between evaluations; the last step is always evaluated.", ABOVE_ZERO
    )
    checkpoint_every: int = operation(
        50, "Steps between checkpoints; the last step is always saved.", ABOVE_ZERO
    )
    fallback: bool = operation(
        True, "If the newest checkpoint is damaged, resume from the one before with a warning."
    )
    keep: int = operation(2, "Newest checkpoints to keep, besides the best.", ABOVE_ZERO)
    workers: int | None = operation(1, "Threads that read batches. None is one per core.", ABOVE_ZERO)
    worker_processes: int = operation(
        0, "Processes that read, each with this many threads. 0 reads in the training process.", NOT_NEGATIVE
    )
    read_ahead: int = operation(4, "Batches to prefetch.", ABOVE_ZERO)
    data_dir: str | None = operation(
        None, "Directory of TFDS datasets. None is TFDS_DATA_DIR or ~/tensorflow_datasets."
    )
    tensorboard: bool = operation(True, "Write TensorBoard events.")
    compilation_cache: bool = operation(
        True,
        "Keep compiled programs in the user's cache directory (JAX_COMPILATION_CACHE_DIR names another).",
    )
    code_dir: str | None = operation(
        None, "Directory of modules that fields name, besides Python's path and the current directory."
    )
    profile: str | None = operation(
        None,
        "Steps to profile into the workdir, such as 10-15. None is off.",
        Allowed(
            lambda value: (found := PROFILED.fullmatch(value)) is not None and int(found[1]) <= int(found[2]),
            "the first and the last step, such as 10-15",
        ),
    )
