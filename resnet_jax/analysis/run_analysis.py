"""Examples of a run's data, and layer responses and gradients of any checkpoint that it kept."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Int

from resnet_jax.analysis.layer_responses import Responses, gradient_norms, measure_responses
from resnet_jax.data.augment import normalize
from resnet_jax.data.data_error import DataError
from resnet_jax.data.source import read_all
from resnet_jax.inference.stored_model import require_classifier
from resnet_jax.models import create_model
from resnet_jax.training.checkpoints import Checkpoint, read_checkpoint, steps_in
from resnet_jax.training.config import Config, from_json, with_fields
from resnet_jax.training.state import split_variables
from resnet_jax.training.stored_classes import open_labeled_split
from resnet_jax.training.stored_code import read_trusted_checkpoint

RESPONSE_EXAMPLES = 1000  # Images that responses are taken over, if the split has as many.


@dataclasses.dataclass(frozen=True)
class Analysis:
    """How the network of a checkpoint responds to images.

    Attributes:
        net: Name of the network.
        step: Step of the checkpoint.
        split: Split of the run's data that the images are from.
        examples: Number of images, the first of the split.
        responses: Deviations by layer and distances by block.
        gradients: Norms by layer, of the gradient of the first training batch; None where they were not asked
            for.
    """

    net: str
    step: int
    split: str
    examples: int
    responses: Responses
    gradients: dict[str, float] | None = None


def analyze_checkpoint(
    workdir: epath.PathLike,
    step: int | None = None,
    *,
    examples: int = RESPONSE_EXAMPLES,
    gradients: bool = False,
    data_dir: str | None = None,
) -> Analysis:
    """Returns the analysis of a checkpoint, on the first images of the run's test split.

    Args:
        workdir: Directory that holds the run.
        step: Step of the checkpoint. Defaults to the newest.
        examples: Largest number of images.
        gradients: Take the gradients by layer too, of the first `batch_size` training images, without
            augmentation.
        data_dir: Directory of the dataset. Defaults to where the run found it.

    Raises:
        WorkdirError, CheckpointError, DataError: What was asked for is not there.
    """
    checkpoint = read_trusted_checkpoint(workdir, step)
    require_classifier(checkpoint, workdir)
    config = _stored_config(checkpoint, data_dir)
    if not config.data.source:
        raise DataError(
            f"the data of this net is not known: {workdir} is an import; "
            "give its images to measure_responses() in Python"
        )
    model, (variables, image_mean) = create_model(**checkpoint.model), split_variables(checkpoint.arrays)

    def first(split: str, count: int, *, test: bool = False) -> tuple[np.ndarray, np.ndarray]:
        source = open_labeled_split(checkpoint, config, split, test=test)
        images, labels = read_all(source, range(min(count, len(source))))
        return images.astype(np.float32) - image_mean, labels

    images, _ = first(config.data.test_split, examples, test=True)
    responses = measure_responses(model, variables, images)
    norms = None
    if gradients:
        whole_groups = config.batch_size - config.batch_size % (checkpoint.model.get("group_size") or 1)
        norms = gradient_norms(model, variables, *first(config.data.train_split, whole_groups))
    return Analysis(
        checkpoint.model["name"], checkpoint.step, config.data.test_split, len(images), responses, norms
    )


def analyze_run(
    workdir: epath.PathLike,
    *,
    examples: int = RESPONSE_EXAMPLES,
    gradients: bool = False,
    data_dir: str | None = None,
) -> list[Analysis]:
    """Returns the analysis of every checkpoint that a run keeps (`config.run.keep`, and the best), by step.

    A live run is not disturbed: during training, these are its checkpoints so far. For the options see
    `analyze_checkpoint`.
    """
    return [
        analyze_checkpoint(workdir, step, examples=examples, gradients=gradients, data_dir=data_dir)
        for step in steps_in(workdir)
    ]


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
        CheckpointError, DataError: The run or its data is not there, or there are not this many examples.

    Example:
        >>> images, labels = read_examples("runs/digits_resnet20", 64)
    """
    checkpoint = read_checkpoint(workdir)
    config = _stored_config(checkpoint)
    name = split or config.data.test_split
    source = open_labeled_split(checkpoint, config, name, test=name == config.data.test_split)
    if first < 0 or not 0 < count <= len(source) - first:
        raise DataError(
            f"split {name} has {len(source)} examples, and {count} from number {first} on were asked for"
        )
    images, labels = read_all(source, np.arange(first, first + count))
    return normalize(jnp.asarray(images), split_variables(checkpoint.arrays)[1]), jnp.asarray(labels)


def _stored_config(checkpoint: Checkpoint, data_dir: str | None = None) -> Config:
    """Returns the config of a checkpoint's run, with another `run.data_dir` if one is given."""
    config = from_json(checkpoint.config)
    return with_fields(config, {"run.data_dir": data_dir or config.run.data_dir})
