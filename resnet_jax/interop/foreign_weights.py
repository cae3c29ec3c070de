"""Weights of another framework: arrays by their names and in their layout there, and the net they belong to.

PyTorch and Caffe have the layout OIHW and [out, in], and this package HWIO and [in, out].
"""

import ast
import dataclasses
import json
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
        left_head: Names of last layers that are not one linear layer, and were left out.
    """

    where: str
    arrays: Mapping[str, np.ndarray]
    name_of: NameOf
    model: ModelArguments
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""
    left_head: tuple[str, ...] = ()


def read_class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Returns the names of classes, by label, that a text file holds.

    The file has a name on every line, or is a list or a dict by label, in JSON or as Python prints it:
    ["tench", "goldfish"], {0: "tench", 1: "goldfish"}, {"0": ["n01440764", "tench"]}.

    Raises:
        InteropError: It cannot be read, is not UTF-8, has an empty line, or labels other than 0 to N - 1.
    """
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig").strip("\r\n")
    except OSError as error:
        raise InteropError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InteropError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    names = (
        _literal_names(path, text) if text[:1] in ("{", "[") else [line.strip() for line in text.splitlines()]
    )
    if not names or not all(names):
        where = f"an empty line {names.index('') + 1}" if names else "no names"
        raise InteropError(f"{path} has {where}; expected a name on every line")
    return tuple(names)


def _literal_names(path: str | os.PathLike[str], text: str) -> list[str]:
    """Returns the names in a list or a dict by label."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise InteropError(
                f"{path} begins like a list or dict, and is none; write a name on every line"
            ) from None
    if isinstance(found, dict):
        labels = {str(label): name for label, name in found.items()}
        expected = [str(label) for label in range(len(labels))]
        if set(labels) != set(expected):
            raise InteropError(
                f"{path} is a dict with the labels {', '.join(list(labels)[:3])}, …; they must be 0 to "
                f"{len(labels) - 1}"
            )
        found = [labels[label] for label in expected]
    names = [name[-1] if isinstance(name, list | tuple) and name else name for name in found]
    if not all(isinstance(name, str) for name in names):
        raise InteropError(f"{path} holds something that is no name of a class: {names[:3]}")
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
