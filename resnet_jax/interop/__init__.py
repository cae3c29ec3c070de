"""Weights in and out of other frameworks, and programs for other runtimes."""

from resnet_jax.interop.exporting import Exported, export
from resnet_jax.interop.foreign import InteropError
from resnet_jax.interop.importing import import_weights, load_pretrained
from resnet_jax.interop.preprocessing import Preprocessing
from resnet_jax.interop.trained import Trained, read_trained

__all__ = [
    "Exported",
    "InteropError",
    "Preprocessing",
    "Trained",
    "export",
    "import_weights",
    "load_pretrained",
    "read_trained",
]
