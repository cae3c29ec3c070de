"""From a name to a net: `create_model("resnet50")`, `create_model("cifar_resnet110")`."""

from collections.abc import Iterable
from functools import partial
from typing import Any, TypeVar

import jax.numpy as jnp
from jax.typing import DTypeLike

from resnet_jax.models.blocks import BlockFactory, BottleneckBlock, VaryBlocks
from resnet_jax.models.import_by_name import import_by_name
from resnet_jax.models.layers import Activation, End, LayerFactory, ModelError, ModuleFactory
from resnet_jax.models.network_names import parse_name, stages_by_name
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.shortcuts import SHORTCUTS, Shortcut, no_shortcut
from resnet_jax.models.stems import CifarStem, ImageNetStem
from resnet_jax.models.variants import Attributes, apply_variants
from resnet_jax.models.vgg import VGG

Model = TypeVar("Model", ResNet, VGG)

# Arguments of create_model, which declares their types.
ModelArguments = dict[str, Any]

STRIDE_ON = ("1x1", "3x3")
VARIANCES = ("biased", "unbiased")
MODEL_DTYPES = ("float32", "bfloat16", "float64")
NORM_OPTIONS = ("variance", "momentum", "epsilon")
# Padding of the maximum of the stem, before and after.
POOLS = {"centered": (1, 1), "caffe": (0, 1)}


def model_class(name: str) -> type[ResNet | VGG]:
    """Returns the class of the net of that name; its class attributes say what such nets can do.

    Raises:
        ModelError: There is no such family of nets.

    Example:
        >>> model_class("vgg16").normalized
        False
    """
    return VGG if parse_name(name)[0] == "vgg" else ResNet


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
        dtype: Dtype of the computation: float32, bfloat16 or float64.
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
        variance: Running variance: "biased" (the default) or "unbiased".
        momentum: Momentum of the running statistics. Defaults to 0.9.
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
    variants = (variants,) if isinstance(variants, str) else variants
    options: Attributes = {
        option: import_by_name(value, field=option, directory=code_dir)
        for option, value in locals().items()
        if value is not None and option not in ("name", "dtype", "stage_depths", "code_dir")
    }
    if num_classes is not None and (isinstance(num_classes, bool) or not isinstance(num_classes, int)):
        raise ModelError(f"num_classes is {num_classes!r}; it must be a whole number of 1 or more")
    if input_scale is not None:
        options["input_scale"] = tuple(input_scale)
    family, depth = parse_name(name)
    attributes = stages_by_name(name, family, depth, stage_depths) | {"dtype": _dtype(dtype)}
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
