"""Weights of another framework: arrays by their names there, and the network that they belong to."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from resnet_jax.errors import UsageError
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.models.registry import ModelArguments

ArrayPath = tuple[str, ...]
"""Path of an array in our variables: ("params", "stage2", "block1", "conv1", "kernel")."""

IMAGENET_DATASET = "imagenet2012"
"""ImageNet's set in TFDS."""

LONGEST = 1000
"""Characters of a message."""

NameOf = Callable[[ArrayPath], str]
"""The name that an array of ours has elsewhere."""


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
