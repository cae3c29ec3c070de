"""Deep residual learning (arXiv 1512.03385) on JAX and Flax: nets, recipes, training and checkpoints."""

from resnet_jax.models import create_model, list_models

__all__ = ["create_model", "list_models"]
