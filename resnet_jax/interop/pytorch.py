"""Reads networks with torchvision's names from files: torchvision's and timm's own, and CIFAR nets."""

import os
import re
from pathlib import Path

import numpy as np

from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.interop.foreign_weights import (
    IMAGENET_DATASET,
    TORCHVISION,
    Foreign,
    InteropError,
    NameOf,
    residual_names,
    vgg_names,
)
from resnet_jax.interop.state_names import StateDict, cifar_names, split_head, without_wrappers
from resnet_jax.interop.weights_files import read_weights
from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.network_names import IMAGENET_STAGES, VGG_STAGES
from resnet_jax.models.registry import ModelArguments, model_class

# Of the channels red, green and blue, as fractions of the largest value.
TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Arrays that tell that a net is one of timm's variants, which is not built here.
TIMM_VARIANTS = {
    "conv1.0.weight": "three convolutions in the stem (names that end in d, s or t)",
    "layer2.0.downsample.2.weight": "an average pool before the projections (names that end in d)",
    "layer1.0.se.fc1.weight": "squeeze and excitation (seresnet)",
}


def from_torch_file(path: Path, *, stride_on: str | None = None, shortcut: str | None = None) -> Foreign:
    """Returns the weights of a net with torchvision's names, residual or VGG; preprocessing is torchvision's.

    Args:
        path: A file of torch.save or safetensors.
        stride_on: Convolution of bottlenecks that strides; torchvision's and timm's is the 3×3.
        shortcut: Shortcut without parameters of a CIFAR net: "A" or "A_centered" (the default).
    """
    loaded, notes = read_weights(path)
    arrays, more = without_wrappers(loaded)
    if "features.0.weight" in arrays:
        convolutions = sum(name.startswith("features.") and name.endswith(".weight") for name in arrays)
        depth = convolutions + 3
        if depth not in VGG_STAGES:
            raise InteropError(
                f"{path} is a VGG net with {convolutions} convolutions; allowed are vgg16 (13) and vgg19 "
                "(16), without BN"
            )
        model, name_of = {"name": f"vgg{depth}"}, vgg_names(VGG_STAGES[depth])
    elif is_cifar(arrays):
        return _from_cifar(path, arrays, shortcut, (*notes, *more))
    else:
        model = residual_model(os.fspath(path), arrays, stride_on or "3x3")
        name_of = residual_names(TORCHVISION)
        if "stride_on" in model and stride_on is None:
            more += (
                "the stride is on the 3x3 convolutions, as torchvision's; for a net with it on the 1x1 give "
                "--stride-on 1x1",
            )
    preprocessing = Preprocessing.from_fractions(TORCHVISION_MEAN, TORCHVISION_STD, resize=256, crop=224)
    told = (
        "images: torchvision's mean and deviation, shorter side 256, center crop 224 (the file does not tell)"
    )
    return foreign_of(path, arrays, name_of, model, preprocessing, notes=(*notes, told, *more))


def _from_cifar(path: Path, arrays: StateDict, shortcut: str | None, notes: tuple[str, ...]) -> Foreign:
    """Returns the weights of a CIFAR net (§4.2), with torchvision's names or akamaster's."""
    arrays = cifar_names(arrays)
    depths = stages_of(arrays)
    name = f"cifar_resnet{2 * sum(depths) + 2}"
    if len(depths) != 3 or len(set(depths)) != 1 or any(".conv3." in array for array in arrays):
        raise InteropError(
            f"{path} has a 3x3 stem and blocks per stage {', '.join(map(str, depths))}, another net than the "
            "paper's for CIFAR; allowed are three stages of n basic blocks each (depth 6n + 2)"
        )
    model: ModelArguments = {"name": name}
    width = int(arrays["conv1.weight"].shape[0])
    if width != 16:
        model["width"] = width
    projected = any(".downsample." in array for array in arrays)
    model["shortcut"] = "B" if projected else shortcut or "A_centered"
    if not projected and shortcut is None:
        notes += (
            "shortcuts without parameters: zeros on both sides of the channels (A_centered), as in "
            "akamaster's repository; for zeros behind them give --shortcut A",
        )
    preprocessing = Preprocessing.from_fractions(TORCHVISION_MEAN, TORCHVISION_STD, resize=32, crop=32)
    told = "images: ImageNet's mean and deviation, 32 pixels (the file does not tell)"
    return foreign_of(
        path, arrays, residual_names(TORCHVISION), model, preprocessing, notes=(*notes, told), source=""
    )


def is_cifar(arrays: StateDict) -> bool:
    """Returns whether a residual net has the 3×3 stem of the CIFAR family."""
    stem = arrays.get("conv1.weight")
    return (
        stem is not None and stem.ndim == 4 and stem.shape[2:] == (3, 3) and "layer1.0.conv1.weight" in arrays
    )


def stages_of(arrays: StateDict) -> tuple[int, ...]:
    """Returns the number of blocks in each stage, by torchvision's names."""
    found = [re.match(r"layer(\d+)\.(\d+)\.", name) for name in arrays]
    blocks = {(int(match[1]), int(match[2])) for match in found if match}
    last = max((stage for stage, _ in blocks), default=0)
    return tuple(sum(stage == number for number, _ in blocks) for stage in range(1, last + 1))


def foreign_of(
    path: Path,
    arrays: StateDict,
    name_of: NameOf,
    model: ModelArguments,
    preprocessing: Preprocessing,
    *,
    class_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    source: str = IMAGENET_DATASET,
) -> Foreign:
    """Returns what was read, with the last layer under its usual names and the preprocessing in the model."""
    model = {**model, "input_scale": preprocessing.input_scale}
    left: tuple[str, ...] = ()
    if model_class(model["name"]).normalized:
        model |= {"epsilon": 1e-5, "variance": "unbiased"}
        arrays, left = _with_head(arrays, name_of)
    return Foreign(os.fspath(path), arrays, name_of, model, preprocessing, class_names, notes, source, left)


def _with_head(arrays: StateDict, name_of: NameOf) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns arrays with the last layer under its usual names, and the names of last layers left out."""
    rest, head = split_head(arrays)
    if head.weight is None:
        return rest, head.names
    bias = np.zeros(len(head.weight), np.float32) if head.bias is None else head.bias
    kernel, offset = (name_of(("params", "head", leaf)) for leaf in ("kernel", "bias"))
    return {**rest, kernel: head.weight, offset: bias}, ()


def residual_model(where: str, arrays: StateDict, stride_on: str) -> ModelArguments:
    """Returns the arguments of the net whose blocks per stage the names count."""
    if variant := next((what for name, what in TIMM_VARIANTS.items() if name in arrays), None):
        raise InteropError(
            f"{where} is a net of timm's with {variant}, another net than the paper's; allowed are its "
            "resnet18, 34, 50, 101, 152"
        )
    stages = stages_of(arrays)
    block = BottleneckBlock if any(".conv3." in name for name in arrays) else BasicBlock
    for depth, (kind, depths) in IMAGENET_STAGES.items():
        if (kind, depths) == (block, stages):
            return {"name": f"resnet{depth}"} | ({"stride_on": stride_on} if block is BottleneckBlock else {})
    what = (
        f"blocks per stage {', '.join(map(str, stages))}"
        if stages
        else f"arrays such as {', '.join(list(arrays)[:3]) or 'none'}"
    )
    raise InteropError(
        f"{where} has {what}, which are of no net with torchvision's names; allowed are resnet18, 34, 50, "
        "101, 152 (blocks per "
        "stage 2, 2, 2, 2 to 3, 8, 36, 3), vgg16 and vgg19"
    )
