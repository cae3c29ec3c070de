"""Weights in and out of other frameworks, and programs for other runtimes."""

from resnet_jax.interop.foreign import InteropError
from resnet_jax.interop.importing import import_weights, load_pretrained
from resnet_jax.interop.preprocessing import Preprocessing

__all__ = ["InteropError", "Preprocessing", "import_weights", "load_pretrained"]
