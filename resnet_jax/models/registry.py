"""From a name to a net: `create_model("resnet50")`, `create_model("cifar_resnet110")`."""

import difflib
import re
from collections.abc import Iterable
from functools import partial
from typing import Any, TypeVar

import jax.numpy as jnp
from jax.typing import DTypeLike

from resnet_jax.models.blocks import BasicBlock, BlockFactory, BottleneckBlock, VaryBlocks
from resnet_jax.models.import_by_name import import_by_name
from resnet_jax.models.layers import Activation, End, LayerFactory, ModelError, ModuleFactory
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.resnet import CifarStem, ImageNetStem, ResNet
from resnet_jax.models.shortcuts import SHORTCUTS, Shortcut, no_shortcut
from resnet_jax.models.variants import Attributes, apply_variants
from resnet_jax.models.vgg import VGG

Model = TypeVar("Model", ResNet, VGG)

# Arguments of create_model, which declares their types.
ModelArguments = dict[str, Any]

# Block and blocks per stage of the residual nets of Table 1, by depth.
IMAGENET_STAGES = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (BottleneckBlock, (3, 4, 6, 3)),
    101: (BottleneckBlock, (3, 4, 23, 3)),
    152: (BottleneckBlock, (3, 8, 36, 3)),
}

PLAIN_DEPTHS = (18, 34)
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)
VGG_STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
STRIDE_ON = ("1x1", "3x3")
VARIANCES = ("biased", "unbiased")
MODEL_DTYPES = ("float32", "bfloat16", "float64")
NORM_OPTIONS = ("variance", "momentum", "epsilon")
# Padding of the maximum of the stem, before and after.
POOLS = {"centered": (1, 1), "caffe": (0, 1)}


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
    """Returns the side of the images that a net is meant for: 32 in the CIFAR family (§4.2), else 224."""
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
    dtype: DTypeLike = jnp.float32,
    stage_depths: Iterable[int] | None = None,
    shortcut: str | Shortcut | None = None,
    stride_on: str | None = None,
    variants: Iterable[str] = (),
    block: str | BlockFactory | None = None,
    norm: str | LayerFactory | None = None,
    conv: str | LayerFactory | None = None,
    activation: str | Activation | None = None,
    stem: str | ModuleFactory | None = None,
    end: str | End | None = None,
    stage: str | ModuleFactory | None = None,
    vary: str | VaryBlocks | None = None,
    width: int | None = None,
    stem_width: int | None = None,
    pool: str | None = None,
    group_size: int | None = None,
    axis_name: str | None = None,
    variance: str | None = None,
    momentum: float | None = None,
    epsilon: float | None = None,
    input_scale: Iterable[float] | None = None,
    hidden: int | None = None,
    dropout: float | None = None,
    code_dir: str = "",
) -> ResNet | VGG:
    """Returns the net of that name, a Linen module whose `apply` gives logits [N, num_classes].

    Functions and classes may be given by name: block="my_parts:Block"; see
    `resnet_jax.models.import_by_name`.

    Args:
        name: `resnet18 … resnet152`, `plain18`, `plain34`, `vgg16`, `vgg19`, `cifar_resnet20`,
            `cifar_plain20` and so on: the CIFAR family has depths 6n + 2 (§4.2). Any other depth needs
            `stage_depths` that add up to it.
        num_classes: Length of the logits. Defaults to 1,000, and to 10 in the CIFAR family.
        dtype: Of the computation: float32, bfloat16 or float64.
        stage_depths: Blocks in each stage; convolutions, for VGG.
        shortcut: "A", "B", "C" or a function. Defaults to B in the ImageNet family and to A in the CIFAR
            family.
        stride_on: Which convolution of a bottleneck strides: "1x1" (the paper, the default) or "3x3"
            ("v1.5").
        variants: Names of `resnet-jax list --variants`, applied in order: ("preactivation",
            "squeeze_excitation:8").
        block: Makes a block. Defaults to the paper's.
        norm: Makes a normalization layer. Defaults to BatchNorm.
        conv: Makes a convolution. Defaults to Conv.
        activation: The non-linearity. Defaults to ReLU.
        stem: Makes the layers before the first stage. Defaults to ImageNetStem or CifarStem.
        end: What comes between the last block and the head; see ResNet.
        stage: Makes a stage. Defaults to Stage.
        vary: Makes blocks differ by their place in the net; see `VaryBlocks`.
        width: Filters of the first stage. Defaults to 64, and to 16 in the CIFAR family.
        stem_width: Channels of the stem. Defaults to `width`.
        pool: How the windows of the ImageNet stem's maximum lie: "centered" (the default) or "caffe".
        group_size: Images per group of batch normalization. Defaults to the whole batch.
        axis_name: Mapped axis that the global batch is spread over.
        variance: Of the running variance: "biased" (the default) or "unbiased".
        momentum: Of the running statistics. Defaults to 0.9.
        epsilon: Added to the variance by batch normalization. Defaults to 1e-5.
        input_scale: Factors of the channels of the images.
        hidden: Units of VGG's fully connected layers. Defaults to 4096.
        dropout: Share of their outputs that is dropped in training. Defaults to 0.5.
        code_dir: Directory that is searched for the modules of functions given by name.

    Raises:
        ModelError: The name, its depth or the value of an option does not exist, or such nets do not have the
            option.

    Example:
        >>> model = create_model("cifar_resnet20", num_classes=10)
        >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        >>> logits = model.apply(variables, images)
    """
    options: Attributes = {
        option: import_by_name(value, field=option, directory=code_dir)
        for option, value in locals().items()
        if value is not None and option not in ("name", "dtype", "stage_depths", "code_dir")
    }
    if num_classes is not None and (isinstance(num_classes, bool) or not isinstance(num_classes, int)):
        raise ModelError(f"num_classes is {num_classes!r}; it must be a whole number of 1 or more")
    if isinstance(variants, str):
        options["variants"] = (variants,)
    if input_scale is not None:
        options["input_scale"] = tuple(input_scale)
    family, depth = _parse(name)
    attributes = _stages(name, family, depth, stage_depths) | {"dtype": _dtype(dtype)}
    attributes["num_classes"] = options.pop("num_classes", 10 if family.startswith("cifar") else 1000)
    if attributes["num_classes"] < 1:
        raise ModelError(f"num_classes must be at least 1, and is {num_classes}")
    specs = tuple(options.pop("variants"))
    if family == "vgg":
        return _construct(name, VGG, attributes | options | ({"variants": specs} if specs else {}))
    attributes |= _residual_attributes(name, family, attributes["block"], options)
    return _construct(name, ResNet, apply_variants(name, attributes | options, specs))


def _residual_attributes(name: str, family: str, block: BlockFactory, options: Attributes) -> Attributes:
    """Returns attributes of a residual or plain net, and takes what they are made from out of the options."""
    cifar = family.startswith("cifar")
    stem: ModuleFactory = CifarStem if cifar else ImageNetStem
    shortcut = _shortcut(name, family, options.pop("shortcut", None))
    if "stride_on" in options:
        block = _with_stride_on(name, block, options.pop("stride_on"))
    if "pool" in options:
        stem = _with_pool(name, stem, options.pop("pool"))
    attributes = {"stem": stem, "width": 16 if cifar else 64, "shortcut": shortcut, "block": block}
    of_norm = {option: options.pop(option) for option in NORM_OPTIONS if option in options}
    if of_norm.get("variance", "biased") not in VARIANCES:
        raise ModelError(f"unknown variance {of_norm['variance']!r}; allowed are {', '.join(VARIANCES)}")
    if of_norm:
        attributes["norm"] = partial(options.pop("norm", BatchNorm), **of_norm)
    return attributes


def _parse(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(cifar_resnet|cifar_plain|resnet|plain|vgg)([1-9]\d*)", name)
    if not match:
        raise ModelError(
            f"unknown model {name!r}; {_guess(name)}names are resnetN, plainN, vggN, cifar_resnetN and "
            "cifar_plainN, for example resnet50 or cifar_resnet20; `resnet-jax list` prints them all"
        )
    return match[1], int(match[2])


def _guess(name: str) -> str:
    """Returns a question that names the network that was meant, if one is close."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    known = {model.replace("_", ""): model for model in list_models()}
    meant = known.get(plain) or known.get(f"cifar{plain}")
    close = [known[found] for found in difflib.get_close_matches(plain, known, 1, 0.75)]
    meant = meant or (close[0] if close else None)
    return f"did you mean {meant}? " if meant and meant != name else ""


def _stages(name: str, family: str, depth: int, given: Iterable[int] | None) -> Attributes:
    """Returns the depths of the stages, and the block except for VGG: the paper's, or the given ones."""
    if given is not None:
        return _given_stages(name, family, depth, tuple(given))
    if family.startswith("cifar"):
        if depth < 8 or (depth - 2) % 6:
            lower = max(8, depth - (depth - 2) % 6)
            raise ModelError(
                f"unknown model {name!r}; depths of this family are 6n + 2 (§4.2), the nearest are "
                f"{lower} and {lower + 6}"
            )
        return {"block": BasicBlock, "stage_depths": ((depth - 2) // 6,) * 3}
    residual = {n: {"block": block, "stage_depths": stages} for n, (block, stages) in IMAGENET_STAGES.items()}
    of_family: dict[str, dict[int, Attributes]] = {
        "vgg": {number: {"stage_depths": stages} for number, stages in VGG_STAGES.items()},
        "resnet": residual,
        "plain": {number: residual[number] for number in PLAIN_DEPTHS},
    }
    if depth not in of_family[family]:
        known = ", ".join(map(str, of_family[family]))
        raise ModelError(f"unknown model {name!r}; {_guess(name)}depths of this family are {known}")
    return dict(of_family[family][depth])


def _given_stages(name: str, family: str, depth: int, stages: tuple[int, ...]) -> Attributes:
    if not stages or min(stages) < 1:
        raise ModelError(f"stage_depths must be at least 1 for every stage, and are {stages}")
    kinds = (BasicBlock, BottleneckBlock)
    residual: dict[int, Attributes] = {kind.convolutions * sum(stages) + 2: {"block": kind} for kind in kinds}
    options = {sum(stages) + 3: {}} if family == "vgg" else residual
    if depth not in options:
        raise ModelError(
            f"{name} does not have stage_depths {stages}, which add up to depth "
            f"{' or '.join(map(str, options))}"
        )
    return {"stage_depths": stages, **options[depth]}


def _dtype(dtype: DTypeLike) -> DTypeLike:
    name = getattr(dtype, "__name__", None) or str(dtype)
    if name not in MODEL_DTYPES:
        raise ModelError(f"unknown dtype {name!r}; allowed are {', '.join(MODEL_DTYPES)}")
    return jnp.dtype(name).type


def _shortcut(name: str, family: str, given: str | Shortcut | None) -> Shortcut:
    plain = family.endswith("plain")
    shortcut = given or ("none" if plain else "A" if family.startswith("cifar") else "B")
    if not callable(shortcut):
        if shortcut not in SHORTCUTS:
            raise ModelError(
                f"unknown shortcut {shortcut!r}; options are {', '.join(SHORTCUTS)} (§3.3), or a function, "
                "also by name"
            )
        shortcut = SHORTCUTS[shortcut]
    if plain and shortcut is not no_shortcut:
        raise ModelError(
            f"{name} is a plain net and has no shortcut; for shortcuts use {name.replace('plain', 'resnet')}"
        )
    return shortcut


def _with_stride_on(name: str, block: BlockFactory, stride_on: str) -> BlockFactory:
    if stride_on not in STRIDE_ON:
        raise ModelError(f"unknown stride_on {stride_on!r}; allowed are {', '.join(STRIDE_ON)}")
    if block is not BottleneckBlock:
        raise ModelError(
            f"stride_on is an option of bottleneck blocks, and {name} has basic ones; leave it out"
        )
    return partial(block, stride_on=stride_on)


def _with_pool(name: str, stem: ModuleFactory, pool: str) -> ModuleFactory:
    if pool not in POOLS:
        raise ModelError(f"unknown pool {pool!r}; allowed are {', '.join(POOLS)}")
    if stem is not ImageNetStem:
        raise ModelError(
            f"pool is an option of the ImageNet family's stem, and {name} has none; leave it out"
        )
    return partial(stem, pool_padding=POOLS[pool])


def _construct(name: str, constructor: type[Model], attributes: Attributes) -> Model:
    unknown = set(attributes) - set(constructor.__dataclass_fields__)
    if unknown:
        allowed = set(constructor.__dataclass_fields__) - {"parent", "name"}
        allowed |= {"stride_on", "pool", "variants", *NORM_OPTIONS} if constructor is ResNet else set()
        raise ModelError(
            f"{name} has no option {', '.join(sorted(unknown))}; options are {', '.join(sorted(allowed))}"
        )
    return constructor(**attributes)
