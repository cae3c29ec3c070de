"""The network that a checkpoint stores, of whatever task."""

import flax.linen as nn

from resnet_jax.errors import UsageError
from resnet_jax.models import create_model
from resnet_jax.models.import_by_name import import_by_name
from resnet_jax.models.registry import ModelArguments
from resnet_jax.training.checkpoints import Checkpoint

MODELS = {"detection": "resnet_jax.detection.detector:create_detector"}
"""What makes the network of a task, by the `task` of the stored arguments; classifiers have none."""

USES = {"detection": "resnet_jax.detection.trained_detector:detector_from"}
"""What makes of a checkpoint of a task an object for its use; named, since such rooms stand on this one."""


def stored_model(arguments: ModelArguments) -> nn.Module:
    """Returns the network that stored arguments describe."""
    task = arguments.get("task")
    if task is None:
        return create_model(**arguments)
    model: nn.Module = import_by_name(MODELS[task], field="task")(**arguments)
    return model


def require_classifier(checkpoint: Checkpoint, workdir: object) -> None:
    """Checks that a checkpoint is of a classifier.

    Raises:
        UsageError: It is of another task.
    """
    if checkpoint.model.get("task"):
        raise UsageError(
            f"{workdir} is a detector, and this is for classifiers; a detector has `resnet-jax detect`, "
            "`resnet-jax evaluate` and `resnet-jax report`"
        )
