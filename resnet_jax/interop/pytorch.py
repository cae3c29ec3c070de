"""Reads networks of torchvision and timm from files, and of Hugging Face and timm from folders."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors

from resnet_jax.files import read_json
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.interop.foreign_weights import (
    HUGGING_FACE,
    IMAGENET_DATASET,
    TORCHVISION,
    Foreign,
    InteropError,
    NameOf,
    residual_names,
    vgg_names,
)
from resnet_jax.interop.torch_files import read_state_dict
from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.registry import IMAGENET_STAGES, VGG_STAGES, ModelArguments, model_class

# Of the channels red, green and blue, as fractions of the largest value.
TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
BLOCKS: dict[str, type[BasicBlock] | type[BottleneckBlock]] = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
}
TIMM = re.compile(r"(tv_)?resnet(18|34|50|101|152)")
# Arrays that tell that a net is one of timm's variants, which is not built here.
TIMM_VARIANTS = {
    "conv1.0.weight": "three convolutions in the stem (names that end in d, s or t)",
    "layer2.0.downsample.2.weight": "an average pool before the projections (names that end in d)",
    "layer1.0.se.fc1.weight": "squeeze and excitation (seresnet)",
}

StateDict: TypeAlias = Mapping[str, np.ndarray]

ForeignJson: TypeAlias = dict[str, Any]
"""A JSON object that another library wrote; what does not fit is caught where it is read."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.safetensors` file, or of one that torch.save wrote, by name.

    Raises:
        InteropError: It cannot be read.
    """
    if path.suffix != ".safetensors":
        return read_state_dict(path)
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, safetensors.SafetensorError, TypeError, ValueError, KeyError) as error:
        raise InteropError(
            f"{path} is no whole .safetensors file ({str(error).splitlines()[0][:120]}); fetch it again"
        ) from error


def from_torch_file(path: Path, *, stride_on: str | None = None) -> Foreign:
    """Returns the weights of a net with torchvision's names, residual or VGG; preprocessing is torchvision's.

    Args:
        path: A `.pth` or `.safetensors` file.
        stride_on: Of bottlenecks; torchvision's and timm's are on the 3×3.
    """
    arrays = read_arrays(path)
    preprocessing = Preprocessing.from_fractions(TORCHVISION_MEAN, TORCHVISION_STD, resize=256, crop=224)
    notes = [
        "images: torchvision's mean and deviation, shorter side 256, center crop 224 (the file does not tell)"
    ]
    if "features.0.weight" in arrays:
        convolutions = sum(name.startswith("features.") and name.endswith(".weight") for name in arrays)
        depth = convolutions + 3
        if depth not in VGG_STAGES:
            raise InteropError(
                f"{path} is a VGG net with {convolutions} convolutions; allowed are vgg16 (13) and vgg19 "
                "(16), without BN"
            )
        model, name_of = {"name": f"vgg{depth}"}, vgg_names(VGG_STAGES[depth])
    else:
        model = _residual(os.fspath(path), arrays, stride_on or "3x3")
        name_of = residual_names(TORCHVISION)
        if "stride_on" in model and stride_on is None:
            notes.append(
                "the stride is on the 3x3 convolutions, as torchvision's; for a net with it on the 1x1 give "
                "--stride-on 1x1"
            )
    return _foreign(path, arrays, name_of, model, preprocessing, notes=tuple(notes))


def from_folder(folder: Path) -> Foreign:
    """Returns the weights of a Hugging Face folder: ResNetForImageClassification, or one of timm's ResNets.

    Raises:
        InteropError: Its config.json describes another net, or a file is missing.
    """
    config = _json(folder / "config.json")
    file = next((folder / name for name in FILES if (folder / name).exists()), None)
    if file is None:
        raise InteropError(
            f"{folder} holds no weights; expected one of {', '.join(FILES)} beside config.json"
        )
    arrays = read_arrays(file)
    try:
        if "architecture" in config:
            return _from_timm(file, config, arrays)
        if config.get("model_type") == "resnet":
            return _from_transformers(file, config, arrays)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InteropError(
            f"config.json or preprocessor_config.json of {folder} is not as its library writes it: "
            f"{type(error).__name__} {error}"
        ) from error
    raise InteropError(
        f"{folder}/config.json is of model_type {config.get('model_type')!r}; allowed are resnet "
        "(ResNetForImageClassification) "
        "and the folders of timm"
    )


def _from_timm(file: Path, config: ForeignJson, arrays: StateDict) -> Foreign:
    architecture = config["architecture"]
    if not TIMM.fullmatch(architecture):
        raise InteropError(
            f"{file.parent} holds timm's {architecture}, another net; allowed are resnet18, 34, 50, 101 and "
            "152"
        )
    if (pool := config.get("global_pool", "avg")) != "avg":
        raise InteropError(
            f"{file.parent}/config.json has global_pool {pool!r}, another net; it must be 'avg'"
        )
    told = config.get("pretrained_cfg", config)
    crop = int(told.get("input_size", (3, 224, 224))[-1])
    resize = math.floor(crop / float(told.get("crop_pct", 0.875)))
    return _foreign(
        file,
        arrays,
        residual_names(TORCHVISION),
        _residual(os.fspath(file), arrays, "3x3"),
        Preprocessing.from_fractions(
            told.get("mean", TORCHVISION_MEAN), told.get("std", TORCHVISION_STD), resize=resize, crop=crop
        ),
        class_names=tuple(told.get("label_names") or config.get("label_names") or ()),
    )


def _from_transformers(file: Path, config: ForeignJson, arrays: StateDict) -> Foreign:
    layer_type, depths = config.get("layer_type", "bottleneck"), tuple(config.get("depths", (3, 4, 6, 3)))
    for field, value in {"hidden_act": "relu", "downsample_in_first_stage": False, "num_channels": 3}.items():
        if config.get(field, value) != value:
            raise InteropError(
                f"{file.parent}/config.json has {field} {config[field]!r}, another net; it must be {value!r}"
            )
    width = config.get("embedding_size", 64)
    block = BLOCKS[layer_type]
    sides = [width * block.expansion * 2**stage for stage in range(len(depths))]
    hidden_sizes = config.get("hidden_sizes", [256, 512, 1024, 2048])
    if list(hidden_sizes) != sides:
        raise InteropError(f"{file.parent}/config.json has hidden_sizes {hidden_sizes}; they must be {sides}")
    depth = sum(depths) * block.convolutions + 2
    model: ModelArguments = {"name": f"resnet{depth}"}
    if (block, depths) != IMAGENET_STAGES.get(depth):
        model["stage_depths"] = depths
    if width != 64:
        model["width"] = width
    if layer_type == "bottleneck":
        model["stride_on"] = "1x1" if config.get("downsample_in_bottleneck", False) else "3x3"
    preprocessing, notes = _processor(file.parent / "preprocessor_config.json")
    labels = config.get("id2label") or {}
    return _foreign(
        file,
        arrays,
        residual_names(HUGGING_FACE),
        model,
        preprocessing,
        class_names=tuple(str(labels[key]) for key in sorted(labels, key=int)),
        notes=notes,
    )


def _processor(path: Path) -> tuple[Preprocessing, tuple[str, ...]]:
    """Returns the preprocessing of a Hugging Face folder, and notes; from 384 pixels on without a crop."""
    there = path.exists()
    told = _json(path) if there else {}
    size = told.get("size", 224)
    side = int(size.get("shortest_edge") or size["height"]) if isinstance(size, dict) else int(size)
    resize = math.floor(side / float(told.get("crop_pct") or 224 / 256)) if side < 384 else side
    missing = f"{path.name} is not there: images are taken to be as ImageNet's usually are"
    preprocessing = Preprocessing.from_fractions(
        told.get("image_mean", TORCHVISION_MEAN),
        told.get("image_std", TORCHVISION_STD),
        resize=resize,
        crop=side,
    )
    return preprocessing, () if there else (missing,)


def _foreign(
    path: Path,
    arrays: StateDict,
    name_of: NameOf,
    model: ModelArguments,
    preprocessing: Preprocessing,
    *,
    class_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Foreign:
    model = {**model, "input_scale": preprocessing.input_scale}
    if model_class(model["name"]).normalized:
        model |= {"epsilon": 1e-5, "variance": "unbiased"}
    return Foreign(
        os.fspath(path),
        arrays,
        name_of,
        model,
        preprocessing,
        class_names,
        notes,
        IMAGENET_DATASET,
    )


def _residual(where: str, arrays: StateDict, stride_on: str) -> ModelArguments:
    """Returns the arguments of the net whose blocks per stage the names count."""
    if variant := next((what for name, what in TIMM_VARIANTS.items() if name in arrays), None):
        raise InteropError(
            f"{where} is a net of timm's with {variant}, another net than the paper's; allowed are its "
            "resnet18, 34, 50, 101, 152"
        )
    found = [re.match(r"layer(\d+)\.(\d+)\.", name) for name in arrays]
    blocks = {(int(match[1]), int(match[2])) for match in found if match}
    stages = tuple(
        sum(stage == number for number, _ in blocks)
        for stage in range(1, max((s for s, _ in blocks), default=0) + 1)
    )
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


def _json(path: Path) -> ForeignJson:
    try:
        found = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise InteropError(f"{path} cannot be read as JSON; a folder of weights needs it") from error
    if not isinstance(found, dict):
        raise InteropError(f"{path} is not a JSON object; a folder of weights needs it")
    return found
