"""What is computed: the nets, as pure functions of variables and images."""

from resnet_jax.models.registry import ModelError, create_model, list_models

__all__ = ["ModelError", "create_model", "list_models"]
