"""From the layout of PyTorch and Caffe (OIHW, [out, in]) to ours (HWIO, [in, out]), and back."""

import math

import numpy as np

from resnet_jax.inference.load import FLATTENED
from resnet_jax.interop.foreign_weights import ArrayPath

Shape = tuple[int, ...]


def foreign_shape(shape: Shape) -> Shape:
    """Returns the shape there of an array of ours."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def to_ours(path: ArrayPath, array: np.ndarray, channels: int) -> np.ndarray:
    """Returns a foreign array in our layout."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    if array.ndim == 2 and path[-2] == FLATTENED:
        # It takes a map, flattened with the channels first there and last here.
        side = math.isqrt(array.shape[1] // channels)
        array = array.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(array.shape)
    return np.ascontiguousarray(array.T)


def to_foreign(path: ArrayPath, array: np.ndarray, channels: int) -> np.ndarray:
    """Returns an array of ours in the foreign layout."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    array = array.T
    if array.ndim == 2 and path[-2] == FLATTENED:
        side = math.isqrt(array.shape[1] // channels)
        array = array.reshape(-1, side, side, channels).transpose(0, 3, 1, 2).reshape(array.shape)
    return np.ascontiguousarray(array)
