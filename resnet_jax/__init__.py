"""Deep residual learning (arXiv 1512.03385) on JAX and Flax: nets, recipes, training and checkpoints."""

import importlib
import importlib.metadata
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet_jax import analysis
    from resnet_jax.inference import Trained, load_checkpoint
    from resnet_jax.interop import load_pretrained
    from resnet_jax.models import (
        create_model,
        feature_shapes,
        features,
        list_models,
        stack_blocks,
        unstack_blocks,
    )
    from resnet_jax.training.config import Config
    from resnet_jax.training.optimizer import sgd
    from resnet_jax.training.schedules import step_decay
    from resnet_jax.training.state import TrainState, create_state
    from resnet_jax.training.step import make_evaluation_step, make_train_step
    from resnet_jax.training.train_recipe import Result

__version__ = importlib.metadata.version("resnet-jax")

__all__ = [
    "Result",
    "TrainState",
    "Trained",
    "__version__",
    "analysis",
    "create_model",
    "create_state",
    "feature_shapes",
    "features",
    "list_models",
    "load",
    "load_checkpoint",
    "load_pretrained",
    "make_evaluation_step",
    "make_train_step",
    "sgd",
    "stack_blocks",
    "step_decay",
    "train",
    "unstack_blocks",
]

_MODULES = {
    "Result": "resnet_jax.training.train_recipe",
    "TrainState": "resnet_jax.training.state",
    "Trained": "resnet_jax.inference",
    "create_model": "resnet_jax.models",
    "create_state": "resnet_jax.training.state",
    "feature_shapes": "resnet_jax.models",
    "features": "resnet_jax.models",
    "list_models": "resnet_jax.models",
    "load_checkpoint": "resnet_jax.inference",
    "load_pretrained": "resnet_jax.interop",
    "make_evaluation_step": "resnet_jax.training.step",
    "make_train_step": "resnet_jax.training.step",
    "sgd": "resnet_jax.training.optimizer",
    "stack_blocks": "resnet_jax.models",
    "step_decay": "resnet_jax.training.schedules",
    "unstack_blocks": "resnet_jax.models",
}
"""Where names come from that are imported at their first use: `import resnet_jax` imports no library."""

_ROOMS = ("analysis", "models")
"""Packages that are attributes: `resnet_jax.analysis` measures what a network does inside."""


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(
    source: str | os.PathLike[str],
    step: int | None = None,
    *,
    statistics: str = "moving",
    trust_code: bool = False,
    interpolation: str | None = None,
) -> "Trained":
    """Returns a trained network with preprocessing and class names.

    Args:
        source: Directory of a run or an import, or its object-storage URL; a file of weights of torchvision's
            or timm's (torch.save or safetensors); or a folder of Hugging Face or timm.
        step: Checkpoint of a run to load. Defaults to the newest.
        statistics: Statistics of batch normalization: "moving", those of training, or "precise", those that
            `resnet-jax evaluate --precise-bn` recomputed.
        trust_code: Whether functions that a checkpoint names may be imported, which runs their modules.
        interpolation: How pictures are resized: "antialias" (areas and linear), "pillow-bilinear" or
            "pillow-bicubic", Pillow's to the bit. Defaults to what the source says, else "antialias".

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its statistics were not recomputed.
        InteropError: The weights cannot be read, or are of another network.
        UntrustedCodeError: The checkpoint names code, and `trust_code` is false; the names are listed.

    Example:
        >>> trained = load("runs/digits_resnet20")
        >>> trained.predict(["seven.png", "two.png"], top=1)
        >>> trained.features("seven.png")["pooled"].shape
        (1, 64)
    """
    from resnet_jax.interop.loading import load_source

    return load_source(
        source, step, statistics=statistics, trust_code=trust_code, interpolation=interpolation
    )


def train(
    recipe: "str | Config" = "digits_resnet20",
    workdir: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    quiet: bool = False,
) -> "Result":
    """Trains a recipe to its end, or resumes it, and returns the result.

    Args:
        recipe: Name of a recipe (`resnet-jax list`), path of a recipe file, or a resolved config; an argument
            follows a colon, as in "cifar10:resnet56".
        workdir: Directory of the run. Defaults to runs/NAME. Training again into it resumes.
        overrides: Other values of fields by their paths, such as {"optimizer.learning_rate": 0.05}.
        quiet: Print nothing.

    Raises:
        UsageError: A field, the data, the workdir or a checkpoint does not fit; the message says which.
        DivergedError: The loss or the gradient is not finite.
        Interrupted: Ctrl-C or SIGTERM came; the state is saved.

    Example:
        >>> result = train("digits_resnet20", "runs/short", {"run.steps": 100})
        >>> result.metrics["test_top1"]
        0.97
    """
    from resnet_jax.training.train_recipe import train_recipe

    return train_recipe(recipe, workdir, overrides, quiet=quiet)
