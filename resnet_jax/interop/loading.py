"""A trained network from wherever it lies: a run, a file of weights, or a folder of Hugging Face or timm."""

import dataclasses
import os

from etils import epath

from resnet_jax.files import as_path, read_json
from resnet_jax.inference.preprocessing import PILLOW_FILTERS
from resnet_jax.inference.trained import Trained, trained_from
from resnet_jax.interop.foreign_weights import InteropError
from resnet_jax.interop.importer import read_as_checkpoint
from resnet_jax.models.trusted_code import trusting_code
from resnet_jax.training.checkpoint_files import CHECKPOINT_DIRECTORY
from resnet_jax.training.checkpoints import Checkpoint
from resnet_jax.training.stored_code import read_trusted_checkpoint
from resnet_jax.training.stored_preprocessing import ANTIALIAS
from resnet_jax.training.stored_statistics import MOVING, with_statistics

HUB = "hf:"


def load_source(
    source: epath.PathLike,
    step: int | None = None,
    *,
    statistics: str = MOVING,
    trust_code: bool = False,
    interpolation: str | None = None,
) -> Trained:
    """Returns the trained network of a source; see `resnet_jax.load`."""
    with trusting_code(trust_code):
        checkpoint, _ = with_statistics(source, open_source_checkpoint(source, step), statistics)
        trained = trained_from(checkpoint)
    if interpolation is None:
        return trained
    if interpolation not in (ANTIALIAS, *PILLOW_FILTERS):
        raise InteropError(
            f"interpolation is {interpolation!r}; allowed are {', '.join((ANTIALIAS, *PILLOW_FILTERS))}"
        )
    preprocessing = dataclasses.replace(trained.preprocessing, interpolation=interpolation)
    return dataclasses.replace(trained, preprocessing=preprocessing)


def open_source_checkpoint(source: epath.PathLike, step: int | None = None) -> Checkpoint:
    """Returns the checkpoint of a run or an import, or one made of a file or folder of weights.

    Args:
        source: Directory of a run, file of weights, or folder of Hugging Face or timm.
        step: Step of a run's checkpoint. Defaults to the newest.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
        InteropError: The weights cannot be read, or are of another network.
        UntrustedCodeError: The checkpoint names code that is not trusted.
    """
    if os.fspath(source).startswith(HUB):
        raise InteropError(
            f"{source} names a model of the Hugging Face Hub, from which nothing is downloaded here; "
            "download its folder and give the path"
        )
    path = as_path(source)
    if not is_foreign(path):
        return read_trusted_checkpoint(path, step)
    if step not in (None, 0):
        raise InteropError(f"{source} is a file or folder of weights, which has no step {step}; leave it out")
    return read_as_checkpoint(os.fspath(path))[0]


def is_foreign(path: epath.Path) -> bool:
    """Returns whether a path is a file of weights, or a folder of them as Hugging Face and timm have it."""
    if "://" in str(path):
        return False
    if path.is_file():
        return True
    if (path / CHECKPOINT_DIRECTORY).is_dir() or not (path / "config.json").is_file():
        return False
    try:
        config = read_json(path / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool({"model_type", "architecture", "architectures"} & config.keys())
