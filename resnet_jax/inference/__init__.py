"""Inference: a trained network with its preprocessing and class names, for pictures in any form."""

from resnet_jax.inference.preprocessing import InferenceError, Preprocessing
from resnet_jax.inference.trained import Guess, Trained, load_checkpoint, load_trained

__all__ = ["Guess", "InferenceError", "Preprocessing", "Trained", "load_checkpoint", "load_trained"]
