"""Deep residual learning (arXiv 1512.03385) on JAX and Flax: nets, recipes, training and checkpoints."""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import flax.linen as nn
    from flax.typing import VariableDict

    from resnet_jax.inference import Preprocessing, Trained
    from resnet_jax.models import (
        create_model,
        feature_shapes,
        features,
        list_models,
        stack_blocks,
        unstack_blocks,
    )

__all__ = [
    "Trained",
    "create_model",
    "feature_shapes",
    "features",
    "list_models",
    "load",
    "load_checkpoint",
    "load_pretrained",
    "stack_blocks",
    "unstack_blocks",
]

_MODULES = {
    "Trained": "resnet_jax.inference",
    "create_model": "resnet_jax.models",
    "feature_shapes": "resnet_jax.models",
    "features": "resnet_jax.models",
    "list_models": "resnet_jax.models",
    "stack_blocks": "resnet_jax.models",
    "unstack_blocks": "resnet_jax.models",
}
"""Where names come from that are imported at their first use: `import resnet_jax` imports no library."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(source: str | os.PathLike[str], step: int | None = None, *, statistics: str = "moving") -> "Trained":
    """Returns the trained network of a run or an import, with preprocessing and class names; it needs no data.

    Args:
        source: Directory of the run or import, or its object-storage URL.
        step: Checkpoint to load. Defaults to the newest.
        statistics: Statistics of batch normalization: "moving", those of training, or "precise", those that
            `resnet-jax evaluate --precise-bn` recomputed.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its statistics were not recomputed.

    Example:
        >>> trained = load("runs/digits_resnet20")
        >>> trained.predict(["seven.png", "two.png"], top=1)
        >>> trained.features("seven.png")["pooled"].shape
        (1, 64)
    """
    from resnet_jax.inference import load_trained

    return load_trained(source, step, statistics)


def load_checkpoint(
    workdir: str, step: int | None = None, *, statistics: str = "moving"
) -> "tuple[nn.Module, VariableDict]":
    """Returns the model of a run and its variables `params` and `batch_stats`; needs nothing but the workdir.

    The blocks are unrolled; for a deep net, `model.clone(stage=resnet_jax.models.ScannedStage)` takes `stack_blocks(variables)` and
    compiles faster.

    Args:
        workdir: A path, or an object-storage URL.
        step: Of the checkpoint; None is the newest.
        statistics: Of batch normalisation: "moving", those of training, or "precise", those that
            `resnet-jax evaluate --precise-bn` recomputed.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its statistics were not recomputed.

    Example:
        >>> model, variables = load_checkpoint("runs/digits_resnet20")
        >>> logits = model.apply(variables, images)
    """
    from resnet_jax.models import create_model
    from resnet_jax.training.checkpoints import read_checkpoint
    from resnet_jax.training.state import split_variables
    from resnet_jax.training.stored_statistics import with_statistics

    checkpoint, _ = with_statistics(workdir, read_checkpoint(workdir, step), statistics)
    return create_model(**checkpoint.model), split_variables(checkpoint.arrays)[0]


def load_pretrained(
    source: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    stride_on: str | None = None,
    mean: str | None = None,
) -> "tuple[nn.Module, VariableDict, Preprocessing]":
    """Returns a net with weights of another framework, its variables, and what it expects of its images.

    The third is a `resnet_jax.inference.Preprocessing`: pictures are resized to its `resize` and cropped to its
    `crop`, and the net takes pixels from 0 to 255, RGB, less its `image_mean`. The net itself applies the scale
    that they were divided by there.

    Args:
        source: A state dict of torchvision's or timm's (`.pth`, `.safetensors`), a folder of Hugging Face's
            or timm's (config.json and weights), or one of the authors' `.caffemodel` files.
        num_classes: Another number than the source's gives a fresh last layer.
        stride_on: Of bottlenecks, "1x1" or "3x3", where the source does not tell; None is torchvision's
            "3x3".
        mean: Of a `.caffemodel`: a `.binaryproto` file, or red, green and blue in pixels:
            "123.7,116.3,103.5".

    Raises:
        InteropError: The source cannot be read, or is of another net; what does not fit is listed. Nothing in
            it is executed.

    Example:
        >>> model, variables, preprocessing = load_pretrained("resnet50.pth")
        >>> logits = model.apply(variables, images - preprocessing.image_mean)
    """
    from resnet_jax.interop import load_pretrained as load  # As above.

    return load(source, num_classes=num_classes, stride_on=stride_on, mean=mean)
