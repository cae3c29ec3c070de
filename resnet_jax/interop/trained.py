"""A net out of a workdir, with all that its use elsewhere needs: weights, what it expects of pictures, names of its classes."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, UInt8

from resnet_jax.data.augment import normalize
from resnet_jax.data.choices import DIGITS, SYNTHETIC
from resnet_jax.data.datasets import is_path, open_encoded
from resnet_jax.data.errors import DataError
from resnet_jax.interop.foreign import InteropError
from resnet_jax.interop.layouts import FLATTENED
from resnet_jax.interop.preprocessing import Preprocessing
from resnet_jax.models import create_model, default_image_size
from resnet_jax.training.checkpoints import Checkpoint, read_checkpoint
from resnet_jax.training.config import Config, from_json
from resnet_jax.training.state import split_variables

DIGITS_SIDE = 16
"""Pixels of a side of the embedded digits."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A net with its weights, computing in float32 whatever it was trained in.

    Attributes:
        step: Of the checkpoint.
        model: The net.
        model_arguments: Those of create_model that give it.
        variables: `params` and `batch_stats`, float32.
        preprocessing: From a picture to the net's input.
        class_names: By label; empty where they are not known.
        source: Name of the data set that it was trained on, as in a config; empty where it is not known.
        labels: Of that data set, where the classes are some of its; empty where they are all of them.
        notes: What a user should be told.
    """

    step: int
    model: nn.Module
    model_arguments: dict[str, Any]
    variables: dict[str, Any]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    source: str
    labels: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def logits(
        self, variables: dict[str, Any], pictures: UInt8[Array, "n h w 3"]
    ) -> Float[Array, "n classes"]:
        """Returns the logits, float32, of pictures that were resized and cropped; a pure function.

        Args:
            variables: Those of this net.
            pictures: uint8[n, crop, crop, 3], RGB.
        """
        logits: Any = self.model.apply(
            variables, normalize(pictures, jnp.asarray(self.preprocessing.image_mean))
        )
        return logits


def read_trained(workdir: epath.PathLike, step: int | None = None) -> Trained:
    """Returns the net of a run or an import.

    Args:
        workdir: A path, or an object-storage URL.
        step: Of the checkpoint; None is the newest.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
        InteropError: Its images are not square.
    """
    checkpoint = read_checkpoint(workdir, step)
    config = from_json(checkpoint.config)
    arguments = {**checkpoint.model, "dtype": "float32"}
    variables, mean = split_variables(checkpoint.arrays)
    variables = jax.tree.map(lambda array: np.asarray(array, np.float32), variables)
    names, notes = _known_names(config, arguments["num_classes"])
    return Trained(
        step=checkpoint.step,
        model=create_model(**arguments),
        model_arguments=arguments,
        variables=variables,
        preprocessing=_preprocessing(checkpoint, config, np.asarray(mean, np.float32)),
        class_names=names,
        source=config.data.source or "",
        labels=config.data.labels or (),
        notes=notes,
    )


def class_names(config: Config) -> tuple[str, ...]:
    """Returns the names of the classes that a run was trained on, without reading an image or preparing a set.

    Raises:
        DataError: The data is not there any more, or not known.
    """
    data = config.data
    if config.inference.class_names:
        return tuple(config.inference.class_names)
    if not data.source:
        raise DataError("nor is the data that the net was trained on")
    if data.source == DIGITS:
        names = tuple(map(str, range(10)))
    elif data.source == SYNTHETIC:
        names = tuple(f"class {label}" for label in range(data.synthetic_classes))
    elif is_path(data.source):
        names = tuple(open_encoded(data.source, data.test_split).class_names)
    else:
        from resnet_jax.data.tfds_sets import (
            tfds_class_names,
        )  # Here: others need not wait for TFDS.

        names = tuple(tfds_class_names(data.source, config.run.data_dir))
    return tuple(names[label] for label in data.labels if label < len(names)) if data.labels else names


def _known_names(config: Config, classes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of the classes, none where they are not known, and notes that say so."""
    try:
        names = class_names(config)
    except DataError as error:
        return (), (f"the names of the classes are not known, and their numbers stand for them: {error}",)
    if len(names) == classes:
        return names, ()
    return (), (
        f"{config.data.source} has {len(names)} classes and the net {classes}, so numbers stand for their names",
    )


def _preprocessing(checkpoint: Checkpoint, config: Config, mean: np.ndarray) -> Preprocessing:
    """Returns what the net expects: as the section `inference` says, else as the run saw its test images."""
    if mean.ndim > 1 and mean.shape[0] != mean.shape[1]:
        raise InteropError(
            f"the net was trained on images of {mean.shape[1]}×{mean.shape[0]} pixels; it must be square ones"
        )
    images, data = config.inference, config.data
    crop = mean.shape[0] if mean.ndim > 1 else images.crop or _side(checkpoint, config)
    resize = images.resize or (max(crop, data.test_scale) if data.image_size else crop)
    scale = checkpoint.model.get("input_scale")
    return Preprocessing(mean, None if scale is None else tuple(scale), resize, crop)


def _side(checkpoint: Checkpoint, config: Config) -> int:
    """Returns the side of the images that a net was trained on, where nothing states it."""
    flattened = checkpoint.arrays.get(f"params/{FLATTENED}/kernel")
    if flattened is not None:  # VGG takes one size only, which its first fully connected layer tells.
        convolutions = {
            name: array
            for name, array in checkpoint.arrays.items()
            if name.startswith("params/") and array.ndim == 4
        }
        stages = {name.split("/")[1].split("_")[0] for name in convolutions}
        channels = max(array.shape[3] for array in convolutions.values())
        return math.isqrt(flattened.shape[0] // channels) * 2 ** len(stages)
    sizes = {DIGITS: DIGITS_SIDE, SYNTHETIC: config.data.synthetic_image_size}
    return (
        config.data.image_size
        or sizes.get(config.data.source or "")
        or default_image_size(checkpoint.model["name"])
    )
