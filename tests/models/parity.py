"""What both sides of a comparison with PyTorch share.

The cases, weights and images from a stated seed, and digests of arrays.

Weights are drawn by the name that an array has in PyTorch, so both sides draw the same ones whatever order
they are in.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

SEED = 20151210
NUM_CLASSES = 10
GOLDEN = Path(__file__).parents[1] / "golden" / "models"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A net, how each side names it, and the images that it is compared on."""

    model: str
    architecture: str
    shortcut: str
    image_size: int
    batch: int
    overrides: dict[str, Any] = field(default_factory=dict)


CASES = {
    "resnet18_a": Case("resnet18", "resnet18", "A", 65, 3, {"shortcut": "A"}),
    "resnet18_b": Case("resnet18", "resnet18", "B", 64, 4),
    "resnet18_c": Case("resnet18", "resnet18", "C", 64, 4, {"shortcut": "C"}),
    "resnet14": Case("resnet14", "resnet14", "B", 65, 3, {"stage_depths": (1, 1, 1, 1)}),
    "resnet50": Case("resnet50", "resnet50", "B", 65, 3),
    "resnet50_stride_on_3x3": Case("resnet50", "resnet50_v1.5", "B", 97, 2, {"stride_on": "3x3"}),
    "cifar_resnet20": Case("cifar_resnet20", "cifar20", "A", 33, 4),
    "cifar_plain20": Case("cifar_plain20", "cifar20", "none", 32, 4),
}


@dataclass(frozen=True)
class Results:
    """What a net gives for a case; arrays by their names in PyTorch and in its layout."""

    eval_logits: np.ndarray
    train_logits: np.ndarray
    statistics: Arrays
    gradients: Arrays


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the array of that name.

    Weights of unit gain, scales, biases and statistics far from their initial values.
    """
    random = np.random.default_rng([SEED, crc32(name.encode())])
    kind = name.rsplit(".", 1)[-1]
    if kind == "weight" and len(shape) > 1:
        return random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return {
        "weight": lambda: random.uniform(0.5, 1.5, shape),
        "bias": lambda: random.normal(0, 0.3, shape),
        "running_mean": lambda: random.normal(0, 0.5, shape),
        "running_var": lambda: random.uniform(0.5, 2, shape),
    }[kind]()


def images_and_labels(name: str, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Returns normalized images [N, H, W, 3] and labels [N]."""
    random = np.random.default_rng([SEED, crc32(name.encode())])
    images = random.normal(size=(case.batch, case.image_size, case.image_size, 3))
    return images, random.integers(0, NUM_CLASSES, case.batch)


def digest(arrays: Arrays) -> tuple[list[str], np.ndarray]:
    """Returns the names, sorted, and for each array its norm and its product with a random vector of norm
    1."""
    names = sorted(arrays)
    rows = []
    for name in names:
        array = np.asarray(arrays[name], np.float64).ravel()
        direction = np.random.default_rng([SEED + 1, crc32(name.encode())]).normal(size=array.size)
        rows.append([np.linalg.norm(array), array @ direction / np.linalg.norm(direction)])
    return names, np.array(rows)
