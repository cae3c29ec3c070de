"""A trained network out of the workdir of a run or an import."""

import math
from typing import cast

import flax.linen as nn
import jax
import numpy as np
from etils import epath
from flax.typing import VariableDict

from resnet_jax.data.choices import DIGITS, SYNTHETIC
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import is_path, open_encoded
from resnet_jax.inference.image_input import InferenceError
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.inference.trained import Trained
from resnet_jax.models import create_model, default_image_size
from resnet_jax.models.vgg import VGG
from resnet_jax.training.checkpoints import Checkpoint, read_checkpoint
from resnet_jax.training.config import Config, from_json
from resnet_jax.training.state import split_variables
from resnet_jax.training.stored_preprocessing import CROP, INTERPOLATION, RESIZE, evaluation_preprocessing
from resnet_jax.training.stored_statistics import MOVING, with_statistics

FLATTENED = "hidden1"
"""VGG's first fully connected layer."""


def load_trained(workdir: epath.PathLike, step: int | None = None, statistics: str = MOVING) -> Trained:
    """Returns the network of a run or an import.

    Args:
        workdir: A path, or an object-storage URL.
        step: Step of the checkpoint. Defaults to the newest.
        statistics: Statistics of batch normalization: "moving", those of training, or "precise", those that
            `resnet-jax evaluate --precise-bn` recomputed.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its statistics were not recomputed.
        InferenceError: The images of the network are not square.
    """
    checkpoint, _ = with_statistics(workdir, read_checkpoint(workdir, step), statistics)
    config = from_json(checkpoint.config)
    arguments = {**checkpoint.model, "dtype": "float32"}
    variables, mean = split_variables(checkpoint.arrays)
    model = create_model(**arguments)
    names, notes = _known_names(config, checkpoint.class_names, arguments["num_classes"])
    return Trained(
        model=model,
        variables=jax.tree.map(lambda array: np.asarray(array, np.float32), variables),
        config=config,
        class_names=names,
        preprocessing=_preprocessing(checkpoint, config, model, np.asarray(mean, np.float32)),
        model_arguments=arguments,
        step=checkpoint.step,
        notes=notes,
    )


def load_checkpoint(
    workdir: epath.PathLike, step: int | None = None, *, statistics: str = MOVING
) -> tuple[nn.Module, VariableDict]:
    """Returns the model of a run and its variables `params` and `batch_stats`; needs nothing but the workdir.

    The blocks are unrolled; for a deep net, `model.clone(stage=resnet_jax.models.ScannedStage)` takes
    `stack_blocks(variables)` and compiles faster.

    Args:
        workdir: A path, or an object-storage URL.
        step: Of the checkpoint; None is the newest.
        statistics: Of batch normalization: "moving", those of training, or "precise", those that
            `resnet-jax evaluate --precise-bn` recomputed.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its statistics were not recomputed.

    Example:
        >>> model, variables = load_checkpoint("runs/digits_resnet20")
        >>> logits = model.apply(variables, images)
    """
    checkpoint, _ = with_statistics(workdir, read_checkpoint(workdir, step), statistics)
    return create_model(**checkpoint.model), split_variables(checkpoint.arrays)[0]


def _known_names(
    config: Config, stored: tuple[str, ...] | None, classes: int
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Returns the names of the classes, None if they are not known, and notes that say so.

    Checkpoints of format 1, and imports, store none: then they come from the data, if that is there.
    """
    try:
        names = config.inference.class_names or stored or _names_in_data(config)
    except DataError as error:
        return None, (f"the names of the classes are not known, and their numbers stand for them: {error}",)
    if len(names) == classes:
        return names, ()
    return None, (
        f"{config.data.source} has {len(names)} classes and the net {classes}, so numbers stand for their "
        "names",
    )


def _names_in_data(config: Config) -> tuple[str, ...]:
    """Returns the class names of the data of a run, without reading an image or preparing a set.

    Raises:
        DataError: The data is not there any more, or not known.
    """
    data = config.data
    if not data.source:
        raise DataError("nor is the data that the net was trained on")
    if data.source == DIGITS:
        names = tuple(map(str, range(10)))
    elif data.source == SYNTHETIC:
        names = tuple(f"class {label}" for label in range(data.synthetic_classes))
    elif is_path(data.source):
        names = tuple(open_encoded(data.source, data.test_split).class_names)
    else:
        from resnet_jax.data.tfds_sets import tfds_class_names  # Here: others need not wait for TFDS.

        names = tuple(tfds_class_names(data.source, config.run.data_dir))
    return tuple(names[label] for label in data.labels if label < len(names)) if data.labels else names


def _preprocessing(
    checkpoint: Checkpoint, config: Config, model: nn.Module, mean: np.ndarray
) -> Preprocessing:
    """Returns the stored preprocessing, or for format 1 what follows from the config and the arrays."""
    if mean.ndim > 1 and mean.shape[0] != mean.shape[1]:
        raise InferenceError(
            f"the net was trained on images of {mean.shape[1]}×{mean.shape[0]} pixels; it must be square ones"
        )
    side = mean.shape[0] if mean.ndim > 1 else None
    stored = checkpoint.preprocessing
    if stored is None:
        stored = evaluation_preprocessing(config, side or _side(checkpoint, config, model))
    crop = side or cast(int, stored[CROP])
    scale = checkpoint.model.get("input_scale")
    return Preprocessing(
        image_mean=mean,
        input_scale=None if scale is None else tuple(scale),
        resize=max(crop, cast(int, stored[RESIZE])),
        crop=crop,
        interpolation=cast(str, stored[INTERPOLATION]),
    )


def _side(checkpoint: Checkpoint, config: Config, model: nn.Module) -> int:
    """Returns the side of the training images, if the checkpoint does not state it."""
    if isinstance(model, VGG):  # It takes one size only, which its first fully connected layer tells.
        stages = len(model.stage_depths)
        channels = model.width * 2 ** min(stages - 1, 3)
        inputs = checkpoint.arrays[f"params/{FLATTENED}/kernel"].shape[0]
        return math.isqrt(inputs // channels) * 2**stages
    data = config.data
    sizes = {DIGITS: 16, SYNTHETIC: data.synthetic_image_size}
    return data.image_size or sizes.get(data.source or "") or default_image_size(checkpoint.model["name"])
