"""Examples of a run's data, as its network takes them."""

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Int

from resnet_jax.data.augment import normalize
from resnet_jax.data.data_error import DataError
from resnet_jax.data.source import read_all
from resnet_jax.training.checkpoints import Checkpoint, read_checkpoint
from resnet_jax.training.config import Config, from_json, with_fields
from resnet_jax.training.splits import open_split
from resnet_jax.training.state import split_variables


def read_examples(
    workdir: epath.PathLike, count: int, *, split: str | None = None, first: int = 0
) -> tuple[Float[Array, "n h w 3"], Int[Array, " n"]]:
    """Returns normalized images and labels of the data that a run was trained on, without augmentation.

    Args:
        workdir: Directory that holds the run.
        count: Number of examples.
        split: Split to read. Defaults to the run's test split.
        first: Number of the first example; the others follow in the order of the split.

    Raises:
        CheckpointError, DataError: The run or its data is not there, or there are not so many examples.

    Example:
        >>> images, labels = read_examples("runs/digits_resnet20", 64)
    """
    checkpoint = read_checkpoint(workdir)
    config = stored_config(checkpoint)
    name = split or config.data.test_split
    source = open_split(config, name, test=name == config.data.test_split)
    if first < 0 or not 0 < count <= len(source) - first:
        raise DataError(
            f"split {name} has {len(source)} examples, and {count} from number {first} on were asked for"
        )
    images, labels = read_all(source, np.arange(first, first + count))
    return normalize(jnp.asarray(images), split_variables(checkpoint.arrays)[1]), jnp.asarray(labels)


def stored_config(checkpoint: Checkpoint, data_dir: str | None = None) -> Config:
    """Returns the config of a checkpoint's run, with another `run.data_dir` if one is given."""
    config = from_json(checkpoint.config)
    return with_fields(config, {"run.data_dir": data_dir or config.run.data_dir})
