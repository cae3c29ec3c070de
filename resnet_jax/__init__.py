"""Deep residual learning (arXiv 1512.03385) on JAX and Flax: nets, recipes, training and checkpoints."""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    "load_checkpoint": "resnet_jax.inference",
    "load_pretrained": "resnet_jax.interop",
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
