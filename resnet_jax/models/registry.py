"""From a name to a net: `create_model("resnet50")`, `create_model("cifar_resnet110")`."""

import re
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.layers import SHORTCUTS, BatchNorm, Dtype
from resnet_jax.models.resnet import CifarStem, ImageNetStem, ResNet
from resnet_jax.models.vgg import VGG

IMAGENET_STAGES = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (BottleneckBlock, (3, 4, 6, 3)),
    101: (BottleneckBlock, (3, 4, 23, 3)),
    152: (BottleneckBlock, (3, 8, 36, 3)),
}
"""Block and blocks per stage of the residual nets of Table 1, by depth."""

PLAIN_DEPTHS = (18, 34)
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)
VGG_STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
STRIDE_ON = ("1x1", "3x3")
VARIANCES = ("biased", "unbiased")


class ModelError(ValueError):
    """A name or an option of a model that does not exist."""


def list_models() -> list[str]:
    """Returns the names of the paper's nets; the CIFAR family takes every other depth 6n + 2 as well."""
    return [
        *(f"resnet{depth}" for depth in IMAGENET_STAGES),
        *(f"plain{depth}" for depth in PLAIN_DEPTHS),
        *(f"vgg{depth}" for depth in VGG_STAGES),
        *(f"cifar_resnet{depth}" for depth in CIFAR_DEPTHS),
        *(f"cifar_plain{depth}" for depth in CIFAR_DEPTHS[:-1]),
    ]


def create_model(name: str, *, num_classes: int | None = None, dtype: Dtype = jnp.float32, **overrides: Any) -> nn.Module:
    """Returns the net of that name, a Linen module whose `apply` gives logits [N, num_classes].

    Args:
        name: `resnet18 … resnet152`, `plain18`, `plain34`, `vgg16`, `vgg19`, `cifar_resnet20`, `cifar_plain20` and so on: the
            CIFAR family has depths 6n + 2 (§4.2). Another depth of the ImageNet family needs `stage_depths`.
        num_classes: 1,000 by default, 10 for the CIFAR family.
        dtype: Of the computation: float32, bfloat16 or float64.
        **overrides: `shortcut` "A", "B", "C" or a function (default: B in the ImageNet family, A in the CIFAR family);
            `stride_on` "1x1" (the paper) or "3x3" ("v1.5") for bottlenecks; `group_size`, images per group of batch
            normalisation; `variance` "biased" or "unbiased", `momentum` and `epsilon` of batch normalisation; every other
            attribute of ResNet or VGG by its name.

    Raises:
        ModelError: The name, its depth or an override does not exist.

    Example:
        >>> model = create_model("cifar_resnet20", num_classes=10)
        >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        >>> logits = model.apply(variables, images)
    """
    family, depth = _parse(name)
    defaults = {"num_classes": num_classes or (10 if family.startswith("cifar") else 1000), "dtype": jnp.dtype(dtype).type}
    if family == "vgg":
        stages = {"stage_depths": _look_up(name, depth, VGG_STAGES)}
        return _construct(name, VGG, stages | defaults | overrides)
    if family.startswith("cifar"):
        residual = {"stem": CifarStem, "width": 16, **_cifar_stages(name, depth)}
    else:
        residual = {"stem": ImageNetStem, "width": 64, **_imagenet_stages(name, family, depth, overrides)}
    default_shortcut = "none" if family.endswith("plain") else "A" if family.startswith("cifar") else "B"
    overrides = dict(overrides)
    residual["shortcut"] = _shortcut(overrides.pop("shortcut", None) or default_shortcut)
    if family.endswith("plain") and residual["shortcut"] is not SHORTCUTS["none"]:
        raise ModelError(f"{name} is a plain net and has no shortcut; for shortcuts use {name.replace('plain', 'resnet')}")
    if "stride_on" in overrides:
        residual["block"] = _with_stride_on(name, residual["block"], overrides.pop("stride_on"))
    norm = {key: overrides.pop(key) for key in ("variance", "momentum", "epsilon") if key in overrides}
    if norm.get("variance", "biased") not in VARIANCES:
        raise ModelError(f"unknown variance {norm['variance']!r}; allowed are {', '.join(VARIANCES)}")
    if norm:
        residual["norm"] = partial(overrides.pop("norm", BatchNorm), **norm)
    return _construct(name, ResNet, residual | defaults | overrides)


def _parse(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(cifar_resnet|cifar_plain|resnet|plain|vgg)([1-9]\d*)", name)
    if not match:
        raise ModelError(
            f"unknown model {name!r}; names are resnetN, plainN, vggN, cifar_resnetN and cifar_plainN, for example resnet50 or "
            "cifar_resnet20; `resnet-jax list` prints them all"
        )
    return match[1], int(match[2])


def _look_up(name: str, depth: int, known: dict[int, Any]) -> Any:
    if depth not in known:
        raise ModelError(f"unknown model {name!r}; depths of this family are {', '.join(map(str, sorted(known)))}")
    return known[depth]


def _cifar_stages(name: str, depth: int) -> dict[str, Any]:
    if depth < 8 or (depth - 2) % 6:
        lower = max(8, depth - (depth - 2) % 6)
        nearest = sorted({lower, lower + 6} if depth > 8 else {8, 14})
        raise ModelError(
            f"unknown model {name!r}; depths of this family are 6n + 2 (§4.2), the nearest are {nearest[0]} and {nearest[1]}"
        )
    return {"block": BasicBlock, "stage_depths": ((depth - 2) // 6,) * 3}


def _imagenet_stages(name: str, family: str, depth: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """Returns block and stage depths: from Table 1, or for another depth from an override that adds up to it."""
    known = {d: IMAGENET_STAGES[d] for d in (PLAIN_DEPTHS if family == "plain" else IMAGENET_STAGES)}
    if "stage_depths" not in overrides:
        block, stages = _look_up(name, depth, known)
        return {"block": block, "stage_depths": stages}
    stages = tuple(overrides["stage_depths"])
    for block in (BasicBlock, BottleneckBlock):
        if block.convolutions * sum(stages) + 2 == depth:
            return {"block": block, "stage_depths": stages}
    legal = " or ".join(str(block.convolutions * sum(stages) + 2) for block in (BasicBlock, BottleneckBlock))
    raise ModelError(f"{name} does not have stage_depths {stages}, which give depth {legal} with basic or bottleneck blocks")


def _shortcut(shortcut: Any) -> Any:
    if callable(shortcut):
        return shortcut
    if shortcut not in SHORTCUTS:
        raise ModelError(f"unknown shortcut {shortcut!r}; options are {', '.join(SHORTCUTS)} (§3.3), or a function")
    return SHORTCUTS[shortcut]


def _with_stride_on(name: str, block: Any, stride_on: str) -> Any:
    if stride_on not in STRIDE_ON:
        raise ModelError(f"unknown stride_on {stride_on!r}; allowed are {', '.join(STRIDE_ON)}")
    if block is not BottleneckBlock:
        raise ModelError(f"stride_on is an option of bottleneck blocks, and {name} has basic ones; leave it out")
    return partial(block, stride_on=stride_on)


def _construct(name: str, constructor: Any, attributes: dict[str, Any]) -> nn.Module:
    unknown = set(attributes) - set(constructor.__dataclass_fields__)
    if unknown:
        allowed = sorted(set(constructor.__dataclass_fields__) - {"parent", "name"})
        raise ModelError(f"{name} has no option {', '.join(sorted(unknown))}; options are {', '.join(allowed)}")
    return constructor(**attributes)
