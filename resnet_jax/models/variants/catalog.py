"""Variants by name, and how each changes the attributes of a ResNet."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.layers import Conv, LayerFactory, ModelError, Residual, unwrap_factory
from resnet_jax.models.normalization import BatchNorm, begin_at_zero
from resnet_jax.models.stems import CifarStem, ImageNetStem, StridedStem
from resnet_jax.models.variants.downsampling import (
    DeepStem,
    average_pool,
    blur_pool,
    pooled_shortcut,
)
from resnet_jax.models.variants.norms import bias, group_norm, standardize_filters
from resnet_jax.models.variants.preactivation import (
    PreactivationBlock,
    PreactivationBottleneckBlock,
    bare,
    normalize_and_activate,
)
from resnet_jax.models.variants.residuals import (
    in_turn,
    residual_scale,
    squeeze_and_excitation,
    stochastic_depth,
)

# Of a ResNet, by name.
Attributes = dict[str, Any]


# The stems of this package, and what ResNet-D has in their place: that for small images stays.
STEMS = {ImageNetStem: DeepStem, CifarStem: CifarStem}


@dataclass(frozen=True)
class Variant:
    """A change to a residual net.

    Attributes:
        name: In `variants=…` and in `config.model.variants`; arguments follow a colon, separated by commas:
            "resnext:32,4".
        what: What it does, in one line.
        paper: Paper that proposes it.
        arguments: Their names and defaults.
        change: From attributes and arguments to attributes. Raises ModelError where it does not fit.
    """

    name: str
    what: str
    paper: str
    arguments: dict[str, int | float]
    change: Callable[..., Attributes]


def apply_variants(name: str, attributes: Attributes, specs: Iterable[str]) -> Attributes:
    """Returns the attributes with the variants that the specs name applied, in their order.

    Args:
        name: Name of the network, for messages.
        attributes: Attributes of a ResNet.
        specs: Names, with arguments where those of the paper are not wanted: "squeeze_excitation",
            "stochastic_depth:0.8".

    Raises:
        ModelError: There is no such variant, or it does not fit.
    """
    for spec in specs:
        word, _, text = str(spec).partition(":")
        if word not in VARIANTS:
            raise ModelError(f"unknown variant {word!r}; variants are {', '.join(VARIANTS)}")
        variant = VARIANTS[word]
        try:
            attributes = variant.change(dict(attributes), **_arguments(variant, text))
        except ModelError as error:
            raise ModelError(f"variant {spec} does not fit {name}: {error}") from error
    return attributes


def _arguments(variant: Variant, text: str) -> dict[str, int | float]:
    given = text.split(",") if text else []
    wanted = ", ".join(f"{key} (default {value})" for key, value in variant.arguments.items()) or "none"
    if len(given) > len(variant.arguments):
        raise ModelError(f"it has {len(given)} arguments; {variant.name} takes {wanted}")
    values = dict(variant.arguments)
    for (key, default), value in zip(variant.arguments.items(), given, strict=False):
        try:
            values[key] = type(default)(value)
        except ValueError:
            raise ModelError(
                f"{value!r} is no {type(default).__name__}; {variant.name} takes {wanted}"
            ) from None
        if values[key] < 0 or (isinstance(default, int) and values[key] < 1):
            raise ModelError(f"{key} is {value}; it must be above 0")
    return values


def _with_norm(attributes: Attributes, norm: LayerFactory) -> Attributes:
    """Returns the attributes with another normalization layer, whose scale begins as before."""
    before, options = unwrap_factory(attributes.get("norm", BatchNorm))
    return attributes | {
        "norm": partial(begin_at_zero, **options | {"norm": norm}) if before is begin_at_zero else norm
    }


def _with_residual(attributes: Attributes, residual: Residual) -> Attributes:
    """Returns the attributes with blocks that also apply this to F(x), after any earlier function."""
    if "vary" in attributes:
        vary, options = unwrap_factory(attributes["vary"])
        return attributes | {
            "vary": partial(vary, **options | {"then": in_turn(options.get("then"), residual)})
        }
    block, options = unwrap_factory(attributes["block"])
    return attributes | {
        "block": partial(block, **options | {"residual": in_turn(options.get("residual"), residual)})
    }


def _preactivation(attributes: Attributes) -> Attributes:
    kinds = {BasicBlock: PreactivationBlock, BottleneckBlock: PreactivationBottleneckBlock}
    (block, options), (stem, _) = unwrap_factory(attributes["block"]), unwrap_factory(attributes["stem"])
    if block not in kinds or stem not in STEMS:
        raise ModelError("it changes block and stem, and one of them is changed already")
    if unwrap_factory(attributes.get("norm", BatchNorm))[0] is begin_at_zero:
        raise ModelError(
            "its blocks do not end with a normalization whose scale could begin at 0; "
            "leave out zero_last_scale"
        )
    changes = {
        "block": partial(kinds[block], **options),
        "stem": bare(attributes["stem"]),
        "end": normalize_and_activate,
    }
    return attributes | changes


def _bottleneck(attributes: Attributes, **changes: object) -> Attributes:
    block, options = unwrap_factory(attributes["block"])
    if block not in (BottleneckBlock, PreactivationBottleneckBlock):
        raise ModelError(
            "it is for bottleneck blocks, as those of resnet50 and deeper, or of stage_depths that give them"
        )
    return attributes | {"block": partial(block, **(options | changes))}


def _wide(attributes: Attributes, factor: int) -> Attributes:
    if unwrap_factory(attributes["block"])[0] in (BottleneckBlock, PreactivationBottleneckBlock):
        return _bottleneck(attributes, widening=float(factor))
    stem = attributes.get("stem_width") or attributes["width"]
    return attributes | {"stem_width": stem, "width": attributes["width"] * factor}


def _resnext(attributes: Attributes, groups: int, width: int) -> Attributes:
    return _bottleneck(attributes, groups=groups, widening=groups * width / 64, stride_on="3x3")


def _squeeze_excitation(attributes: Attributes, reduction: int) -> Attributes:
    return _with_residual(attributes, partial(squeeze_and_excitation, reduction=reduction))


def _stochastic_depth(attributes: Attributes, survival: float) -> Attributes:
    if not 0 < survival <= 1:
        raise ModelError(f"survival is {survival}; it must be above 0 and up to 1")
    if "vary" in attributes:
        raise ModelError("blocks differ by their place in the net already")
    return attributes | {"vary": partial(stochastic_depth, survival=survival)}


def _group_norm(attributes: Attributes, groups: int) -> Attributes:
    return _with_norm(attributes, partial(group_norm, groups=groups)) | {
        "conv": partial(Conv, transform=standardize_filters)
    }


def _resnet_d(attributes: Attributes) -> Attributes:
    stem, _ = unwrap_factory(attributes["stem"])
    if stem not in STEMS:
        raise ModelError("it changes the stem, and so did another variant")
    attributes |= {"stem": STEMS[stem], "shortcut": pooled_shortcut(attributes["shortcut"], average_pool)}
    block, options = unwrap_factory(attributes["block"])
    return attributes | (
        {"block": partial(block, **options | {"stride_on": "3x3"})} if hasattr(block, "stride_on") else {}
    )


def _small_stem(attributes: Attributes) -> Attributes:
    if attributes["stem"] is not ImageNetStem:
        raise ModelError("it changes the ImageNet family's stem")
    return attributes | {"stem": StridedStem}


def _width(attributes: Attributes, filters: int) -> Attributes:
    if filters < 1:
        raise ModelError("its filters are 1 or more")
    return attributes | {"width": filters}


def _blur_shortcut(attributes: Attributes) -> Attributes:
    return attributes | {"shortcut": pooled_shortcut(attributes["shortcut"], blur_pool)}


def _zero_last_scale(attributes: Attributes) -> Attributes:
    block, _ = unwrap_factory(attributes["block"])
    if block not in (BasicBlock, BottleneckBlock):
        raise ModelError("it is for blocks that end with a normalization")
    norm = attributes.get("norm", BatchNorm)
    return attributes | {"norm": partial(begin_at_zero, layer=f"norm{block.convolutions}", norm=norm)}


def _skip_init(attributes: Attributes) -> Attributes:
    return _with_residual(_with_norm(attributes, bias), residual_scale)


# The variants, by name.
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            "preactivation",
            "normalize and activate before convolving, add only",
            "arXiv 1603.05027",
            {},
            _preactivation,
        ),
        Variant(
            "wide",
            "this many times the filters; in bottlenecks, those of the first two convolutions",
            "arXiv 1605.07146",
            {"factor": 10},
            _wide,
        ),
        Variant(
            "resnext",
            "grouped 3×3 convolutions of this many groups and filters in each",
            "arXiv 1611.05431",
            {"groups": 32, "width": 4},
            _resnext,
        ),
        Variant(
            "squeeze_excitation",
            "channels gated by the means of all channels",
            "arXiv 1709.01507",
            {"reduction": 16},
            _squeeze_excitation,
        ),
        Variant(
            "stochastic_depth",
            "blocks dropped at random for each example, deeper ones more often",
            "arXiv 1603.09382",
            {"survival": 0.5},
            _stochastic_depth,
        ),
        Variant(
            "group_norm",
            "normalization of each image over groups of channels, standardized weights",
            "arXiv 1803.08494, 1903.10520",
            {"groups": 32},
            _group_norm,
        ),
        Variant(
            "resnet_d",
            "three small convolutions in the stem, shortcuts that average",
            "arXiv 1812.01187",
            {},
            _resnet_d,
        ),
        Variant(
            "zero_last_scale", "the last scale of F(x) begins at 0", "arXiv 1706.02677", {}, _zero_last_scale
        ),
        Variant(
            "blur_shortcut", "shortcuts that blur before striding", "arXiv 1904.11486", {}, _blur_shortcut
        ),
        Variant(
            "skip_init", "no normalization; F(x) times a number from 0 on", "arXiv 2002.10444", {}, _skip_init
        ),
        Variant(
            "width",
            "this many filters in the first stage, and doubled in every later one",
            "arXiv 1512.03385, Table 1",
            {"filters": 64},
            _width,
        ),
        Variant(
            "small_stem",
            "a 3×3 convolution with stride 2 and no maximum, for images of about 128 pixels",
            "arXiv 1512.03385, §4.2, with a stride",
            {},
            _small_stem,
        ),
    )
}
