"""Reads folders as Hugging Face's Hub has them: config.json and weights, of transformers or of timm."""

import math
import os
import re
from pathlib import Path
from typing import Any, TypeAlias

from resnet_jax.files import read_json
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.interop.foreign_weights import (
    HUGGING_FACE,
    TORCHVISION,
    Foreign,
    InteropError,
    residual_names,
)
from resnet_jax.interop.pytorch import (
    TORCHVISION_MEAN,
    TORCHVISION_STD,
    foreign_of,
    residual_model,
)
from resnet_jax.interop.state_names import StateDict, without_wrappers
from resnet_jax.interop.weights_files import read_weights
from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.network_names import IMAGENET_STAGES
from resnet_jax.models.registry import ModelArguments
from resnet_jax.training.stored_preprocessing import ANTIALIAS, PILLOW_BICUBIC

FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
BLOCKS: dict[str, type[BasicBlock] | type[BottleneckBlock]] = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
}
TIMM = re.compile(r"(tv_)?resnet(18|34|50|101|152)")

ForeignJson: TypeAlias = dict[str, Any]
"""A JSON object that another library wrote; what does not fit is caught where it is read."""


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
    loaded, notes = read_weights(file)
    arrays, more = without_wrappers(loaded)
    try:
        if "architecture" in config:
            return _from_timm(file, config, arrays, (*notes, *more))
        if config.get("model_type") == "resnet":
            return _from_transformers(file, config, arrays, (*notes, *more))
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


def _from_timm(file: Path, config: ForeignJson, arrays: StateDict, notes: tuple[str, ...]) -> Foreign:
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
    size = told.get("test_input_size") or told.get("input_size") or (3, 224, 224)
    if len(size) != 3 or size[0] != 3 or size[1] != size[2]:
        raise InteropError(f"{file.parent}/config.json has the input size {size}; it must be 3 × N × N")
    crop = int(size[-1])
    shares = [told[name] for name in ("test_crop_pct", "crop_pct") if told.get(name) is not None]
    resize = math.floor(crop / float(shares[0] if shares else 0.875))
    interpolation, more = _interpolation(told.get("interpolation", "bilinear"))
    if (mode := told.get("crop_mode", "center")) != "center":
        more += (f"crop_mode {mode!r} is not known here: the center is taken",)
    if "test_input_size" in told:
        more += (f"images: {crop} pixels of {resize}, the test size of the folder",)
    return foreign_of(
        file,
        arrays,
        residual_names(TORCHVISION),
        residual_model(os.fspath(file), arrays, "3x3"),
        Preprocessing.from_fractions(
            told.get("mean", TORCHVISION_MEAN),
            told.get("std", TORCHVISION_STD),
            resize=resize,
            crop=crop,
            interpolation=interpolation,
        ),
        class_names=tuple(map(str, told.get("label_names") or config.get("label_names") or ())),
        notes=(*notes, *more),
    )


def _interpolation(name: object) -> tuple[str, tuple[str, ...]]:
    """Returns how pictures are resized, by timm's name or Pillow's number, and what cannot be honored."""
    if name in ("bicubic", 3):
        return PILLOW_BICUBIC, (
            "images: resized bicubically in prediction, as there; evaluation of datasets resizes linearly",
        )
    if name in ("bilinear", "random", "", None, 2):
        return ANTIALIAS, ()
    return ANTIALIAS, (f"the interpolation {name!r} is not known here: images are resized linearly",)


def _from_transformers(file: Path, config: ForeignJson, arrays: StateDict, notes: tuple[str, ...]) -> Foreign:
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
    preprocessing, more = _processor(file.parent / "preprocessor_config.json")
    labels = config.get("id2label") or {}
    return foreign_of(
        file,
        arrays,
        residual_names(HUGGING_FACE),
        model,
        preprocessing,
        class_names=tuple(str(labels[key]) for key in sorted(labels, key=int)),
        notes=(*notes, *more),
    )


def _processor(path: Path) -> tuple[Preprocessing, tuple[str, ...]]:
    """Returns the preprocessing of a Hugging Face folder, and notes; from 384 pixels on without a crop."""
    there = path.exists()
    told = _json(path) if there else {}
    size = told.get("size", 224)
    side = int(size.get("shortest_edge") or size["height"]) if isinstance(size, dict) else int(size)
    resize = math.floor(side / float(told.get("crop_pct") or 224 / 256)) if side < 384 else side
    interpolation, notes = _interpolation(told.get("resample", 2))
    if not there:
        notes += (f"{path.name} is not there: images are taken to be as ImageNet's usually are",)
    preprocessing = Preprocessing.from_fractions(
        told.get("image_mean", TORCHVISION_MEAN),
        told.get("image_std", TORCHVISION_STD),
        resize=resize,
        crop=side,
        interpolation=interpolation,
    )
    return preprocessing, notes


def _json(path: Path) -> ForeignJson:
    try:
        found = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise InteropError(f"{path} cannot be read as JSON; a folder of weights needs it") from error
    if not isinstance(found, dict):
        raise InteropError(f"{path} is not a JSON object; a folder of weights needs it")
    return found
