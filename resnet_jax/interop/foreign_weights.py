"""Weights of another framework: arrays by their names and in their layout there, and the net they belong to.

PyTorch and Caffe have the layout OIHW and [out, in], and this package HWIO and [in, out].
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np
from flax.traverse_util import flatten_dict
from flax.typing import VariableDict

from resnet_jax.errors import UsageError
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.inference.trained import FLATTENED
from resnet_jax.models.registry import ModelArguments

ArrayPath = tuple[str, ...]
"""Path of an array in our variables: ("params", "stage2", "block1", "conv1", "kernel")."""

NameOf = Callable[[ArrayPath], str]
"""The name that an array of ours has elsewhere."""

Shape = tuple[int, ...]

IMAGENET_DATASET = "imagenet2012"  # In TFDS.
LONGEST = 1000  # Characters of a message.

# In PyTorch the kernel of a convolution and the scale of a normalization are both called weight.
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

# Torchvision's residual nets, and timm's; our CIFAR nets are exported under the same names.
TORCHVISION = {
    "stem/conv": "conv1",
    "stem/norm": "bn1",
    "conv": "layer{stage}.{block0}.conv{layer}",
    "norm": "layer{stage}.{block0}.bn{layer}",
    "projection": "layer{stage}.{block0}.downsample.0",
    "projection_norm": "layer{stage}.{block0}.downsample.1",
    "head": "fc",
}

# ResNetForImageClassification of transformers.
HUGGING_FACE = {
    "stem/conv": "resnet.embedder.embedder.convolution",
    "stem/norm": "resnet.embedder.embedder.normalization",
    "conv": "resnet.encoder.stages.{stage0}.layers.{block0}.layer.{layer0}.convolution",
    "norm": "resnet.encoder.stages.{stage0}.layers.{block0}.layer.{layer0}.normalization",
    "projection": "resnet.encoder.stages.{stage0}.layers.{block0}.shortcut.convolution",
    "projection_norm": "resnet.encoder.stages.{stage0}.layers.{block0}.shortcut.normalization",
    "head": "classifier.1",
}

IN_BLOCK = re.compile(
    r"stage(?P<stage>\d+)/block(?P<block>\d+)/(?P<kind>conv|norm|projection|projection_norm)(?P<layer>\d*)"
)


class InteropError(UsageError):
    """Weights that cannot be read, do not fit, or cannot be written; the message names the file and a remedy.

    It quotes names from files that nobody vouches for, and so is cut to one printable line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(
            "".join(character if character.isprintable() else "?" for character in message[:LONGEST])
        )


@dataclasses.dataclass(frozen=True)
class Foreign:
    """Weights of another framework.

    Attributes:
        where: File or folder, for messages.
        arrays: By their names there, in that framework's layout.
        name_of: Gives the name of each array of ours there.
        model: Arguments of create_model, without `num_classes`.
        preprocessing: What the net expects of its images.
        class_names: By label; empty where the source does not tell.
        notes: What a user should know of how the source was understood.
        source: Name of the data set that the net was trained on, as in a config; empty where it is not known.
    """

    where: str
    arrays: Mapping[str, np.ndarray]
    name_of: NameOf
    model: ModelArguments
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""


def read_class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Returns the lines of a text file, the names of classes by label.

    Raises:
        InteropError: It cannot be read, or has an empty line.
    """
    try:
        names = tuple(line.strip() for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise InteropError(f"{path} cannot be read as text; expected a name on every line") from error
    if not all(names):
        raise InteropError(f"{path} has an empty line {names.index('') + 1}; expected a name on every line")
    return names


def residual_names(table: dict[str, str]) -> NameOf:
    """Returns the names of a residual net's arrays by a table; others keep our name, with dots."""

    def name_of(path: ArrayPath) -> str:
        module = "/".join(path[1:-1])
        if match := IN_BLOCK.fullmatch(module):
            stage, block, layer = int(match["stage"]), int(match["block"]), int(match["layer"] or 0)
            there = table[match["kind"]].format(
                stage=stage, stage0=stage - 1, block0=block - 1, layer=layer, layer0=layer - 1
            )
        elif module in table:
            there = table[module]
        else:
            return ".".join(path[1:])
        return f"{there}.{LEAVES[path[-1]]}"

    return name_of


def vgg_names(stage_depths: tuple[int, ...]) -> NameOf:
    """Returns torchvision's names of a VGG net, whose convolutions, ReLUs and pools are numbered."""
    modules = {"hidden1": "classifier.0", "hidden2": "classifier.3", "head": "classifier.6"}
    number = 0
    for stage, depth in enumerate(stage_depths, start=1):
        for index in range(depth):
            modules[f"stage{stage}_conv{index + 1}"] = f"features.{number + 2 * index}"
        number += 2 * depth + 1
    return lambda path: f"{modules[path[1]]}.{LEAVES[path[-1]]}"


def foreign_shape(shape: Shape) -> Shape:
    """Returns the shape there of an array of ours."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def to_ours(path: ArrayPath, array: np.ndarray, channels: int) -> np.ndarray:
    """Returns a foreign array in our layout."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    if array.ndim == 2 and path[-2] == FLATTENED:
        # It takes a map, flattened with the channels first there and last here.
        side = math.isqrt(array.shape[1] // channels)
        array = array.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(array.shape)
    return np.ascontiguousarray(array.T)


def to_foreign(variables: VariableDict) -> dict[ArrayPath, np.ndarray]:
    """Returns the arrays of a net of ours in the foreign layout."""
    arrays = flatten_dict(variables)
    channels = last_channels({path: array.shape for path, array in arrays.items()})

    def foreign(path: ArrayPath, array: np.ndarray) -> np.ndarray:
        if array.ndim == 4:
            return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
        array = array.T
        if array.ndim == 2 and path[-2] == FLATTENED:
            side = math.isqrt(array.shape[1] // channels)
            array = array.reshape(-1, side, side, channels).transpose(0, 3, 1, 2).reshape(array.shape)
        return np.ascontiguousarray(array)

    return {path: foreign(path, array) for path, array in arrays.items()}


def last_channels(shapes: Mapping[ArrayPath, Shape]) -> int:
    """Returns the channels of the last map of a net: what its last convolution gives."""
    return [shape[3] for shape in shapes.values() if len(shape) == 4][-1]
