"""A trained network in use: loaded with all that it needs, asked about pictures in any form."""

from resnet_jax.inference.image_input import InferenceError
from resnet_jax.inference.load import load_checkpoint, load_trained
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.inference.trained import Guess, Trained

__all__ = ["Guess", "InferenceError", "Preprocessing", "Trained", "load_checkpoint", "load_trained"]
