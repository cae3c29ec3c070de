"""From a name to a net: `create_model("resnet50")`, `create_model("cifar_resnet110")`."""

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.import_by_name import import_options
from resnet_jax.models.layers import Dtype, ModelError
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.resnet import CifarStem, ImageNetStem, ResNet
from resnet_jax.models.shortcuts import SHORTCUTS
from resnet_jax.models.variants import apply_variants
from resnet_jax.models.vgg import VGG

ModelArguments = dict[str, Any]
"""Arguments of create_model; their types are those of the network's attributes."""

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
DTYPES = ("float32", "bfloat16", "float64")
NORM_OPTIONS = ("variance", "momentum", "epsilon")
POOLS = {"centered": (1, 1), "caffe": (0, 1)}
"""Padding of the stem's maximum, before and after."""


def list_models() -> list[str]:
    """Returns the names of the paper's nets; the CIFAR family takes every other depth 6n + 2 as well."""
    return [
        *(f"resnet{depth}" for depth in IMAGENET_STAGES),
        *(f"plain{depth}" for depth in PLAIN_DEPTHS),
        *(f"vgg{depth}" for depth in VGG_STAGES),
        *(f"cifar_resnet{depth}" for depth in CIFAR_DEPTHS),
        *(f"cifar_plain{depth}" for depth in CIFAR_DEPTHS[:-1]),
    ]


def default_image_size(name: str) -> int:
    """Returns the height and width of the images that a net is meant for: 32 for the CIFAR family (§4.2), 224 for ImageNet."""
    return 32 if _parse(name)[0].startswith("cifar") else 224


def model_class(name: str) -> type[ResNet | VGG]:
    """Returns the class of the net of that name; its class attributes say what such nets can do.

    Raises:
        ModelError: There is no such family of nets.

    Example:
        >>> model_class("vgg16").normalized
        False
    """
    return VGG if _parse(name)[0] == "vgg" else ResNet


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    dtype: Dtype = jnp.float32,
    code_dir: str = "",
    **overrides: Any,
) -> nn.Module:
    """Returns the net of that name, a Linen module whose `apply` gives logits [N, num_classes].

    Args:
        name: `resnet18 … resnet152`, `plain18`, `plain34`, `vgg16`, `vgg19`, `cifar_resnet20`, `cifar_plain20` and so on: the
            CIFAR family has depths 6n + 2 (§4.2). Any other depth needs `stage_depths` that add up to it.
        num_classes: 1,000 by default, 10 for the CIFAR family.
        dtype: Of the computation: float32, bfloat16 or float64.
        code_dir: Searched for the modules of functions that are given by name; see `resnet_jax.models.import_by_name`.
        **overrides: `stage_depths`, blocks in each stage (convolutions, for VGG); `shortcut` "A", "B", "C" or a function
            (default: B in the ImageNet family, A in the CIFAR family); `stride_on` "1x1" (the paper) or "3x3" ("v1.5") for
            bottlenecks; `group_size`, images per group of batch normalization; its `variance` "biased" or "unbiased", `momentum`
            and `epsilon`; `variants`, names of `resnet-jax list --variants` applied in order, such as ("preactivation",
            "squeeze_excitation:8"); `pool` "centered" or "caffe", how the windows of the ImageNet stem's maximum lie; every other
            attribute of ResNet or VGG by its name. A function or class may be a name: block="my_parts:Block".

    Raises:
        ModelError: The name, its depth or an override does not exist.

    Example:
        >>> model = create_model("cifar_resnet20", num_classes=10)
        >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        >>> logits = model.apply(variables, images)
    """
    family, depth = _parse(name)
    cifar, plain = family.startswith("cifar"), family.endswith("plain")
    overrides = import_options(overrides, directory=code_dir)
    attributes = _stages(name, family, depth, overrides.pop("stage_depths", None))
    attributes["num_classes"] = (10 if cifar else 1000) if num_classes is None else num_classes
    attributes["dtype"] = _dtype(dtype)
    if overrides.get("input_scale") is not None:
        overrides["input_scale"] = tuple(overrides["input_scale"])
    if attributes["num_classes"] < 1:
        raise ModelError(f"num_classes must be at least 1, and is {num_classes}")
    variants = tuple(overrides.pop("variants", ()))
    if family == "vgg":
        return _construct(name, VGG, attributes | overrides | ({"variants": variants} if variants else {}))
    attributes |= {"stem": CifarStem, "width": 16} if cifar else {"stem": ImageNetStem, "width": 64}
    default_shortcut = "none" if plain else "A" if cifar else "B"
    attributes["shortcut"] = _shortcut(overrides.pop("shortcut", None) or default_shortcut)
    if plain and attributes["shortcut"] is not SHORTCUTS["none"]:
        raise ModelError(
            f"{name} is a plain net and has no shortcut; for shortcuts use {name.replace('plain', 'resnet')}"
        )
    if "stride_on" in overrides:
        attributes["block"] = _with_stride_on(name, attributes["block"], overrides.pop("stride_on"))
    if "pool" in overrides:
        attributes["stem"] = _with_pool(name, attributes["stem"], overrides.pop("pool"))
    norm = {key: overrides.pop(key) for key in NORM_OPTIONS if key in overrides}
    if norm.get("variance", "biased") not in VARIANCES:
        raise ModelError(f"unknown variance {norm['variance']!r}; allowed are {', '.join(VARIANCES)}")
    if norm:
        attributes["norm"] = partial(overrides.pop("norm", BatchNorm), **norm)
    return _construct(name, ResNet, apply_variants(name, attributes | overrides, variants))


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
        raise ModelError(
            f"unknown model {name!r}; depths of this family are {', '.join(map(str, sorted(known)))}"
        )
    return known[depth]


def _stages(name: str, family: str, depth: int, given: Iterable[int] | None) -> dict[str, Any]:
    """Returns the depths of the stages, and the block except for VGG: the paper's, or as given if they add up to the depth."""
    if given is not None:
        return _given_stages(name, family, depth, tuple(given))
    if family == "vgg":
        return {"stage_depths": _look_up(name, depth, VGG_STAGES)}
    if not family.startswith("cifar"):
        depths = PLAIN_DEPTHS if family == "plain" else IMAGENET_STAGES
        block, stages = _look_up(name, depth, {known: IMAGENET_STAGES[known] for known in depths})
        return {"block": block, "stage_depths": stages}
    if depth < 8 or (depth - 2) % 6:
        lower = max(8, depth - (depth - 2) % 6)
        raise ModelError(
            f"unknown model {name!r}; depths of this family are 6n + 2 (§4.2), the nearest are {lower} and {lower + 6}"
        )
    return {"block": BasicBlock, "stage_depths": ((depth - 2) // 6,) * 3}


def _given_stages(name: str, family: str, depth: int, stages: tuple[int, ...]) -> dict[str, Any]:
    if not stages or min(stages) < 1:
        raise ModelError(f"stage_depths must be at least 1 for every stage, and are {stages}")
    if family == "vgg":
        options: dict[int, dict[str, Any]] = {sum(stages) + 3: {}}
    else:
        options = {
            block.convolutions * sum(stages) + 2: {"block": block} for block in (BasicBlock, BottleneckBlock)
        }
    if depth not in options:
        raise ModelError(
            f"{name} does not have stage_depths {stages}, which add up to depth {' or '.join(map(str, options))}"
        )
    return {"stage_depths": stages, **options[depth]}


def _dtype(dtype: Dtype) -> Dtype:
    name = getattr(dtype, "__name__", None) or str(dtype)
    if name not in DTYPES:
        raise ModelError(f"unknown dtype {name!r}; allowed are {', '.join(DTYPES)}")
    return jnp.dtype(name).type


def _shortcut(shortcut: Any) -> Any:
    if callable(shortcut):
        return shortcut
    if shortcut not in SHORTCUTS:
        raise ModelError(
            f"unknown shortcut {shortcut!r}; options are {', '.join(SHORTCUTS)} (§3.3), or a function, also by name"
        )
    return SHORTCUTS[shortcut]


def _with_stride_on(name: str, block: Any, stride_on: str) -> Any:
    if stride_on not in STRIDE_ON:
        raise ModelError(f"unknown stride_on {stride_on!r}; allowed are {', '.join(STRIDE_ON)}")
    if block is not BottleneckBlock:
        raise ModelError(
            f"stride_on is an option of bottleneck blocks, and {name} has basic ones; leave it out"
        )
    return partial(block, stride_on=stride_on)


def _with_pool(name: str, stem: Any, pool: str) -> Any:
    if pool not in POOLS:
        raise ModelError(f"unknown pool {pool!r}; allowed are {', '.join(POOLS)}")
    if stem is not ImageNetStem:
        raise ModelError(
            f"pool is an option of the ImageNet family's stem, and {name} has none; leave it out"
        )
    return partial(stem, pool_padding=POOLS[pool])


def _construct(name: str, constructor: Any, attributes: dict[str, Any]) -> nn.Module:
    unknown = set(attributes) - set(constructor.__dataclass_fields__)
    if unknown:
        allowed = set(constructor.__dataclass_fields__) - {"parent", "name"}
        allowed |= {"stride_on", "pool", "variants", *NORM_OPTIONS} if constructor is ResNet else set()
        raise ModelError(
            f"{name} has no option {', '.join(sorted(unknown))}; options are {', '.join(sorted(allowed))}"
        )
    return constructor(**attributes)
