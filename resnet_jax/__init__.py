"""Deep residual learning (arXiv 1512.03385) on JAX and Flax: nets, recipes, training and checkpoints."""

from typing import Any

from resnet_jax.models import create_model, feature_shapes, features, list_models

__all__ = ["create_model", "feature_shapes", "features", "list_models", "load_checkpoint"]


def load_checkpoint(workdir: str, step: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Returns the model of a run and its variables `params` and `batch_stats`; needs nothing but the workdir.

    Args:
        workdir: A path, or an object-storage URL.
        step: Of the checkpoint; None is the newest.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.

    Example:
        >>> model, variables = load_checkpoint("runs/digits_resnet20")
        >>> logits = model.apply(variables, images)
    """
    from resnet_jax.training.checkpoints import read_checkpoint  # Here, so that the nets alone import quickly.
    from resnet_jax.training.state import split_variables

    checkpoint = read_checkpoint(workdir, step)
    return create_model(**checkpoint.model), split_variables(checkpoint.arrays)[0]
