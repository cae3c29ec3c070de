"""Weights in and out of other frameworks, and programs for other runtimes."""

from resnet_jax.interop.exporter import Exported, export
from resnet_jax.interop.foreign_weights import InteropError
from resnet_jax.interop.importer import import_weights, load_pretrained

__all__ = ["Exported", "InteropError", "export", "import_weights", "load_pretrained"]
