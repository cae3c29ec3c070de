"""The authors' nets as Caffe keeps and computes them.

Arrays by layer, files in protobuf's wire format, and the layers in NumPy.
"""

import functools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.interop.nets import STAGES
from tests.models.parity import draw

Blobs = dict[str, list[np.ndarray]]
"""The arrays of each layer that has any, [K, C, h, w] and in the order of the file."""

FACTOR = 999.98
"""The third number of a BatchNorm layer: what its sums of means and variances are to be divided by."""


def blocks(depth: int) -> Iterator[tuple[str, int, int]]:
    """Yields the name of each block, its filters and its stride.

    2a, 2b, … and 3a, 3b1, 3b2, … in stages of the deeper nets.
    """
    for stage, count in enumerate(STAGES[depth][1]):
        lettered = depth == 50 or stage in (0, 3)
        for number in range(count):
            name = chr(ord("a") + number) if lettered or not number else f"b{number}"
            yield f"{stage + 2}{name}", 64 * 2**stage, 2 if number == 0 and stage else 1


@functools.lru_cache(maxsize=1)
def weights(depth: int, classes: int = 10) -> Blobs:
    """Returns random weights under the authors' names; conv1 has a bias in the net of 50 layers alone."""
    layers: Blobs = {}

    def add(conv: str, suffix: str, shape: tuple[int, ...], *, gain: float = 1.0, bias: bool = False) -> None:
        channels = shape[0]
        layers[conv] = [draw(f"{conv}.weight", shape), *([draw(f"{conv}.bias", (channels,))] if bias else [])]
        mean, var = draw(f"{conv}.running_mean", (channels,)), draw(f"{conv}.running_var", (channels,))
        layers[f"bn{suffix}"] = [mean * FACTOR, var * FACTOR, np.array([FACTOR])]
        layers[f"scale{suffix}"] = [
            gain * draw(f"{conv}_scale.weight", (channels,)),
            draw(f"{conv}_scale.bias", (channels,)),
        ]

    add("conv1", "_conv1", (64, 3, 7, 7), bias=depth == 50)
    into = 64
    for name, filters, _ in blocks(depth):
        if name.endswith("a"):
            add(f"res{name}_branch1", f"{name}_branch1", (4 * filters, into, 1, 1))
        for letter, shape in (
            ("a", (filters, into, 1, 1)),
            ("b", (filters, filters, 3, 3)),
            ("c", (4 * filters, filters, 1, 1)),
        ):
            add(
                f"res{name}_branch2{letter}",
                f"{name}_branch2{letter}",
                shape,
                gain=0.3 if letter == "c" else 1.0,
            )
        into = 4 * filters
    layers[f"fc{classes}"] = [draw("fc.weight", (classes, into)), draw("fc.bias", (classes,))]
    return {name: [blob.astype(np.float32) for blob in blobs] for name, blobs in layers.items()}


def write(path: Path, layers: Blobs) -> Path:
    """Writes a `.caffemodel`, with a layer without arrays after every one that has some."""
    messages = []
    for name, blobs in layers.items():
        arrays = b"".join(
            _bytes(7, _bytes(7, _bytes(1, b"".join(map(_varint, b.shape)))) + _bytes(5, _floats(b)))
            for b in blobs
        )
        messages.append(_bytes(100, _bytes(1, name.encode()) + _bytes(2, b"Layer") + arrays))
        messages.append(_bytes(100, _bytes(1, f"{name}_relu".encode()) + _bytes(2, b"ReLU")))
    path.write_bytes(_bytes(1, b"ResNet") + b"".join(messages))
    return path


def write_mean(path: Path, mean: np.ndarray) -> Path:
    """Writes a mean image [3, H, W], blue first, in the older form: num, channels, height, width."""
    sides = b"".join(
        _varint(number << 3) + _varint(side) for number, side in enumerate((1, *mean.shape), start=1)
    )
    path.write_bytes(sides + _bytes(5, _floats(mean)))
    return path


def _floats(array: np.ndarray) -> bytes:
    return struct.pack(f"<{array.size}f", *array.ravel())


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def run(layers: Blobs, images: np.ndarray, mean: np.ndarray, depth: int) -> dict[str, np.ndarray]:
    """Returns what each block gives, [N, C, H, W], by its name, and under "logits" what the last layer gives.

    Args:
        layers: See `weights`.
        images: uint8[N, H, W, 3], RGB.
        mean: [3, H, W] or [3, 1, 1], blue first.
        depth: Of the net.
    """

    def layer(x: np.ndarray, conv: str, suffix: str, stride: int = 1) -> np.ndarray:
        kernel, *bias = layers[conv]
        x = convolution(x, kernel, stride) + (bias[0][:, None, None] if bias else 0)
        mean, variance, factor = layers[f"bn{suffix}"]
        x = (x - (mean / factor)[:, None, None]) / np.sqrt((variance / factor)[:, None, None] + 1e-5)
        scale, offset = layers[f"scale{suffix}"]
        return x * scale[:, None, None] + offset[:, None, None]

    x = images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - mean.astype(np.float32)
    x = maximum(np.maximum(layer(x, "conv1", "_conv1", 2), 0), 3, 2)
    found = {}
    for name, _, stride in blocks(depth):
        shortcut = layer(x, f"res{name}_branch1", f"{name}_branch1", stride) if name.endswith("a") else x
        x = np.maximum(layer(x, f"res{name}_branch2a", f"{name}_branch2a", stride), 0)
        x = np.maximum(layer(x, f"res{name}_branch2b", f"{name}_branch2b"), 0)
        x = np.maximum(layer(x, f"res{name}_branch2c", f"{name}_branch2c") + shortcut, 0)
        found[name] = x
    weight, bias = next(blobs for name, blobs in layers.items() if name.startswith("fc"))
    return found | {"logits": x.mean((2, 3)) @ weight.T + bias}


def convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """[N, C, H, W] with [K, C, h, w], (size - 1) / 2 zeros on every side."""
    size = kernel.shape[2]
    padded = np.pad(x, [(0, 0), (0, 0), *[(size // 2,) * 2] * 2])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))[:, :, ::stride, ::stride]
    return np.tensordot(windows, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def maximum(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Caffe's pool without padding: as many windows as begin so that all pixels are seen.

    Those at the end may hang over.
    """
    side = -(-(x.shape[2] - size) // stride) + 1
    rows: Sequence[np.ndarray] = [
        np.stack(
            [x[:, :, i : i + size, j : j + size].max((2, 3)) for j in range(0, side * stride, stride)], -1
        )
        for i in range(0, side * stride, stride)
    ]
    return np.stack(rows, 2)
