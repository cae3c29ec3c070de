"""RoIAlign and RoIPool as plain loops over one bin at a time, from their descriptions."""

import math

import numpy as np


def at(x: np.ndarray, y: float, z: float) -> np.ndarray:
    """Returns the bilinear value of a map at row y and column z; 0 more than a pixel outside of it."""
    height, width = x.shape[:2]
    if not (-1 <= y <= height and -1 <= z <= width):
        return np.zeros(x.shape[2])
    y, z = min(max(y, 0), height - 1), min(max(z, 0), width - 1)
    top, left = math.floor(y), math.floor(z)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    below, beside = y - top, z - left
    upper = (1 - beside) * x[top, left] + beside * x[top, right]
    lower = (1 - beside) * x[bottom, left] + beside * x[bottom, right]
    return (1 - below) * upper + below * lower


def align(
    x: np.ndarray, box: np.ndarray, *, stride: int, bins: int, samples: int | None, aligned: bool
) -> np.ndarray:
    """Returns a region of a map [bins, bins, c], the mean of samples in every bin."""
    shift = 0.5 if aligned else 0.0
    left, top, right, bottom = (edge / stride - shift for edge in box)
    width, height = right - left, bottom - top
    if not aligned:
        width, height = max(width, 1), max(height, 1)
    rows, columns = samples or math.ceil(height / bins), samples or math.ceil(width / bins)
    out = np.zeros((bins, bins, x.shape[2]))
    for row in range(bins):
        for column in range(bins):
            for i in range(rows):
                for j in range(columns):
                    y = top + (row + (i + 0.5) / rows) * height / bins
                    z = left + (column + (j + 0.5) / columns) * width / bins
                    out[row, column] += at(x, y, z) / (rows * columns)
    return out


def half_away(value: float) -> int:
    """Returns the nearest integer; of two, the one away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def pool(x: np.ndarray, box: np.ndarray, *, stride: int, bins: int) -> np.ndarray:
    """Returns a region of a map [bins, bins, c], the maximum in every bin; the box holds its last pixels."""
    left, top, right, bottom = (half_away(edge / stride) for edge in box)
    width, height = max(right - left + 1, 1), max(bottom - top + 1, 1)
    out = np.zeros((bins, bins, x.shape[2]))
    for row in range(bins):
        for column in range(bins):
            pixels = [
                x[y, z]
                for y in range(top + row * height // bins, top - (-(row + 1) * height // bins))
                for z in range(left + column * width // bins, left - (-(column + 1) * width // bins))
                if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]
            ]
            if pixels:
                out[row, column] = np.max(pixels, 0)
    return out
