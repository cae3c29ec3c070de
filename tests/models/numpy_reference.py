"""The layers in NumPy, written as the formulas read."""

import numpy as np


def convolution(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """[N, H, W, C] * [h, w, C, K], with (size - 1) / 2 zeros on every side."""
    height, width = kernel.shape[:2]
    padded = np.pad(x, [(0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)])
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    terms = (
        padded[:, i : i + rows, j : j + columns] @ kernel[i, j] for i in range(height) for j in range(width)
    )
    return sum(terms)[:, ::stride, ::stride]


def maximum(x: np.ndarray, size: int, stride: int, padding: int) -> np.ndarray:
    """Maximum over windows, with `padding` pixels of minus infinity on every side."""
    padded = np.pad(x, [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)], constant_values=-np.inf)
    rows, columns = padded.shape[1] - size + 1, padded.shape[2] - size + 1
    windows = [padded[:, i : i + rows, j : j + columns] for i in range(size) for j in range(size)]
    return np.max(windows, axis=0)[:, ::stride, ::stride]


def normalization(x: np.ndarray, params: dict, statistics: dict, epsilon: float = 1e-5) -> np.ndarray:
    """Batch normalization with given statistics."""
    return (x - statistics["mean"]) / np.sqrt(statistics["var"] + epsilon) * params["scale"] + params["bias"]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def randomised(shapes: dict, seed: int) -> dict:
    """Returns {"params": …, "batch_stats".

    …} of the same structure with values far from their initial ones.
    """
    random = np.random.default_rng(seed)

    def fill(tree: dict) -> dict:
        return {
            name: fill(value) if isinstance(value, dict)
            else random.uniform(0.5, 2, value.shape) if name in ("var", "scale")
            else random.normal(size=value.shape) / np.sqrt(max(np.prod(value.shape[:-1]), 1))
            for name, value in tree.items()
        }  # fmt: skip

    return fill(shapes)
