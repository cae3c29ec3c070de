"""What is computed: the nets, as pure functions of variables and images."""

from resnet_jax.models.features import FeatureShape, feature_shapes, features
from resnet_jax.models.layers import ModelError
from resnet_jax.models.network_names import default_image_size, list_models
from resnet_jax.models.registry import create_model, model_class
from resnet_jax.models.resnet import ResNet, Stage
from resnet_jax.models.scanned import ScannedStage
from resnet_jax.models.stacking import stack_blocks, unstack_blocks
from resnet_jax.models.summary import Layer, Summary, summarize

__all__ = [
    "FeatureShape",
    "Layer",
    "ModelError",
    "ResNet",
    "ScannedStage",
    "Stage",
    "Summary",
    "create_model",
    "default_image_size",
    "feature_shapes",
    "features",
    "list_models",
    "model_class",
    "stack_blocks",
    "summarize",
    "unstack_blocks",
]
