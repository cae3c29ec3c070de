"""The analyses of `resnet_jax.paper.responses` of a run: of its checkpoints, so of any moment of the training that was kept."""

import dataclasses
from typing import Any

import numpy as np
from etils import epath

from resnet_jax.data.errors import DataError
from resnet_jax.models import create_model
from resnet_jax.paper.responses import Responses, analyse, gradient_norms
from resnet_jax.training.checkpoints import Checkpoint, read_checkpoint, steps_in
from resnet_jax.training.config import Config, from_json, with_fields
from resnet_jax.training.experiment import open_split
from resnet_jax.training.state import split_variables

EXAMPLES = 1000
"""Images that responses are taken over, if the split has as many."""


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What a checkpoint's net makes of images.

    Attributes:
        net: Name of the net.
        step: Of the checkpoint.
        split: Of the run's data.
        examples: Images of the split, the first so many.
        responses: Deviations by layer and distances by block.
        gradients: Norms by layer, of the gradient of the first training batch; None where they were not asked for.
    """

    net: str
    step: int
    split: str
    examples: int
    responses: Responses
    gradients: dict[str, float] | None = None


def analyse_checkpoint(
    workdir: epath.PathLike,
    step: int | None = None,
    *,
    examples: int = EXAMPLES,
    gradients: bool = False,
    data_dir: str | None = None,
) -> Analysis:
    """Returns the analysis of a checkpoint, on the first images of the run's test split.

    Args:
        workdir: Of the run.
        step: Of the checkpoint; None is the newest.
        examples: Images at most.
        gradients: Take the gradients by layer too, of the first `batch_size` training images, without augmentation.
        data_dir: Where the data set is; None is where the run found it.

    Raises:
        WorkdirError, CheckpointError, DataError: What was asked for is not there.
    """
    checkpoint = read_checkpoint(workdir, step)
    config = from_json(checkpoint.config)
    if not config.data.source:
        raise DataError(
            f"the data of this net is not known: {workdir} is an import; give its images to analyse() in Python"
        )
    config = with_fields(config, {"run.data_dir": data_dir or config.run.data_dir})
    model, (variables, image_mean) = create_model(**checkpoint.model), split_variables(checkpoint.arrays)
    images, _ = _first(config, config.data.test_split, examples, test=True)
    found = analyse(model, variables, images - image_mean)
    norms = None
    if gradients:
        seen, labels = _first(config, config.data.train_split, _whole_groups(checkpoint, config.batch_size))
        norms = gradient_norms(model, variables, seen - image_mean, labels)
    return Analysis(
        checkpoint.model["name"], checkpoint.step, config.data.test_split, len(images), found, norms
    )


def analyse_run(workdir: epath.PathLike, **options: Any) -> list[Analysis]:
    """Returns the analysis of every checkpoint that a run keeps (`config.run.keep`, and the best), rising in steps.

    So an analysis during training is one of checkpoints: a live run is not disturbed, and raising `run.keep` gives more of them.
    For the options see `analyse_checkpoint`.
    """
    return [analyse_checkpoint(workdir, step, **options) for step in steps_in(workdir)]


def _first(config: Config, split: str, count: int, *, test: bool = False) -> tuple[np.ndarray, np.ndarray]:
    source = open_split(config, split, test=test)
    images, labels = source.read(range(min(count, len(source))))
    return images.astype(np.float32), labels


def _whole_groups(checkpoint: Checkpoint, batch_size: int) -> int:
    return batch_size - batch_size % (checkpoint.model.get("group_size") or 1)
