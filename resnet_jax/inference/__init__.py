"""A trained network in use: loaded with all that it needs, asked about pictures in any form."""

from resnet_jax.inference.preprocessing import InferenceError, Preprocessing
from resnet_jax.inference.trained import Guess, Trained, load_checkpoint, load_trained

__all__ = ["Guess", "InferenceError", "Preprocessing", "Trained", "load_checkpoint", "load_trained"]
