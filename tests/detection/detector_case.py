"""A detector of the embedded scenes with random weights, and images, from a seed alone and NumPy."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnet_jax.detection.detector import Detector, create_detector

DETECTOR_GOLDEN = Path(__file__).parents[1] / "golden" / "detection" / "detector.npz"
CLASSES = 10
SHRUNK = {"/score/kernel": 0.3, "/deltas/kernel": 0.05, "rpn_deltas/kernel": 0.05, "rpn_object/kernel": 0.5}
"""Factors of weights that keep scores from 0 and 1, and boxes near their anchors."""
MEAN = np.full(3, 128.0)


def detector(dtype: str = "float32") -> Detector:
    return create_detector(
        profile="scenes",
        num_classes=CLASSES,
        name="resnet18",
        variants=("width:16", "small_stem"),
        dtype=dtype,
    )


def weights(dtype: str = "float32") -> dict[str, Any]:
    """Returns variables whose maps keep their size from layer to layer and whose scores are decided."""
    model = detector(dtype)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), np.zeros((1, 128, 128, 3), np.float32)),
    )
    random = np.random.RandomState(0)

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        value = random.normal(size=leaf.shape)
        if name.endswith(("var", "scale")):
            value = np.exp(0.1 * value)
        elif name.endswith("kernel"):
            value *= (2 / np.prod(leaf.shape[:-1])) ** 0.5
        else:
            value *= 0.1
        if "stem/norm/var" in name:
            value *= 128**2
        for part, factor in SHRUNK.items():
            value *= factor if part in name else 1
        return value.astype(dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def images(count: int) -> np.ndarray:
    """Returns uint8 images with structure of several sizes."""
    random = np.random.RandomState(1)
    total = np.zeros((count, 128, 128, 3))
    for side in (4, 16, 64):
        small = random.normal(size=(count, side, side, 3))
        total += small.repeat(128 // side, 1).repeat(128 // side, 2)
    return np.clip(128 + 40 * total, 0, 255).astype(np.uint8)


def batch(count: int) -> dict[str, np.ndarray]:
    return {
        "image": images(count),
        "size": np.full((count, 2), 128, np.int32),
        "scale": np.ones((count, 2), np.float32),
    }
