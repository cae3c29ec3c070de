"""The authors' Caffe models of ResNet-50, 101 and 152 (github.com/KaimingHe), by their layer names.

In them batch normalization is two layers: BatchNorm, whose mean and variance are to be divided by a third
number, and Scale, with scale and bias. Images are BGR, from 0 to 255, less a mean image that is a file of its
own. The maximum after conv1 has no padding, and its last window hangs over. Some convolutions have a bias
(conv1 of ResNet-50); before a normalization it is the same as a mean that is less by it.
"""

import math
import os
import re
from pathlib import Path

import numpy as np

from resnet_jax.files import is_junk
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.interop import protobuf
from resnet_jax.interop.foreign_weights import IMAGENET_DATASET, ArrayPath, Foreign, InteropError, NameOf
from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.network_names import IMAGENET_STAGES

LAYER, V1_LAYER = 100, 2  # Of NetParameter.
NAME, TYPE, BLOBS = 1, 2, 7  # Of LayerParameter.
V1_NAME, V1_BLOBS = 4, 6  # Of V1LayerParameter.
SHAPE, DATA, DOUBLE_DATA, LEGACY_SHAPE = (
    7,
    5,
    8,
    (1, 2, 3, 4),
)  # Of BlobProto; the last are num, channels, height, width.
CAFFE_CROP, CAFFE_RESIZE = 224, 256

Blobs = dict[str, list[np.ndarray]]


def from_caffemodel(path: Path, *, mean: str | None) -> Foreign:
    """Returns the weights of a `.caffemodel`, in PyTorch's layout.

    Args:
        path: Path of the file.
        mean: A `.binaryproto` file, or three numbers: red, green, blue. None takes the one `.binaryproto`
            beside the file.

    Raises:
        InteropError: It is not whole, or not a residual net after the authors' names, or the mean is not
            there.
    """
    layers = _layers(path)
    try:
        with np.errstate(all="ignore"):  # What is not finite is listed when the net is assembled.
            arrays = _folded(os.fspath(path), layers)
        name, name_of = _net(os.fspath(path), arrays)
        arrays["conv1.kernel"] = np.ascontiguousarray(arrays["conv1.kernel"][:, ::-1])  # BGR to RGB.
    except (ValueError, IndexError) as error:
        raise InteropError(
            f"{path} has arrays of other dimensions than the authors' nets ({error}); fetch it again"
        ) from error
    return Foreign(
        os.fspath(path),
        arrays,
        name_of,
        {"name": name, "stride_on": "1x1", "pool": "caffe", "epsilon": 1e-5},
        Preprocessing(_mean(path, mean), None, CAFFE_RESIZE, CAFFE_CROP),
        notes=(
            "images: RGB here, the order of conv1's inputs and of the mean was turned around; pool1 as "
            "Caffe's, without padding",
        ),
        source=IMAGENET_DATASET,
    )


def read_blob(message: protobuf.Value) -> np.ndarray:
    """Returns the array of a BlobProto, float32.

    Raises:
        WireError: Its numbers do not fill its shape.
    """
    if isinstance(message, int):
        raise protobuf.WireError("a blob is a number")
    found = protobuf.fields(message)
    described = found.get(SHAPE, [0])[0]
    if not isinstance(described, int):
        shape = tuple(protobuf.packed_varints(protobuf.fields(described).get(1, [])))
    else:
        shape = tuple(int(found.get(number, [1])[0]) for number in LEGACY_SHAPE)
    field, dtype = (DOUBLE_DATA, "<f8") if DOUBLE_DATA in found else (DATA, "<f4")
    numbers = np.frombuffer(
        b"".join(bytes(value) for value in found.get(field, []) if not isinstance(value, int)), dtype
    )
    if numbers.size != math.prod(shape):
        raise protobuf.WireError(f"a blob of shape {list(shape)} holds {numbers.size:,} numbers")
    return numbers.reshape(shape).astype(np.float32)


def _layers(path: Path) -> Blobs:
    """Returns the blobs of the layers that have any, by the layer's name."""
    try:
        net = protobuf.fields(path.read_bytes())
        blobs: Blobs = {}
        for number, name_field, blobs_field in ((LAYER, NAME, BLOBS), (V1_LAYER, V1_NAME, V1_BLOBS)):
            for message in net.get(number, []):
                layer = protobuf.fields(message)  # type: ignore[arg-type]
                if blobs_field in layer:
                    name = bytes(layer[name_field][0]).decode()
                    blobs[name] = [read_blob(blob) for blob in layer[blobs_field]]
    except (ValueError, TypeError, KeyError) as error:
        raise InteropError(f"{path} is no whole .caffemodel ({error}); fetch it again") from error
    except OSError as error:
        raise InteropError(f"{path} cannot be read: {error.strerror}") from error
    if not blobs:
        raise InteropError(
            f"{path} is a Caffe net without weights, or another kind of file; expected the authors' "
            ".caffemodel"
        )
    return blobs


def _folded(where: str, layers: Blobs) -> dict[str, np.ndarray]:
    """Returns arrays by "layer.leaf"; those of a normalization are under the name of its BatchNorm."""
    arrays: dict[str, np.ndarray] = {}
    biases: dict[str, np.ndarray] = {}
    for name, blobs in layers.items():
        kind = re.match(r"(bn|scale|res\d|conv1$|fc)", name)
        expected = {"bn": (3,), "scale": (2,), "fc": (2,)}.get(kind[1] if kind else "", (1, 2))
        if not kind or len(blobs) not in expected:
            raise InteropError(
                f"{where} has a layer {name!r} with {len(blobs)} arrays, which is not of the authors' "
                "residual nets; expected "
                "conv1, bn_conv1, scale_conv1, res2a_branch1, bn2a_branch1, scale2a_branch1, …, fc1000"
            )
        if kind[1] == "bn":
            factor = float(blobs[2].ravel()[0]) if blobs[2].size else 0.0
            share = 1 / factor if factor else 0.0
            arrays[f"{name}.mean"], arrays[f"{name}.var"] = blobs[0].ravel() * share, blobs[1].ravel() * share
        elif kind[1] == "scale":
            norm = f"bn{name.removeprefix('scale')}"
            arrays[f"{norm}.scale"], arrays[f"{norm}.bias"] = blobs[0].ravel(), blobs[1].ravel()
        elif kind[1] == "fc":
            arrays[f"{name}.kernel"], arrays[f"{name}.bias"] = (
                blobs[0].reshape(blobs[0].shape[-2:]),
                blobs[1].ravel(),
            )
        else:
            arrays[f"{name}.kernel"] = blobs[0]
            if len(blobs) == 2:
                biases[name] = blobs[1].ravel()
    for name, bias in biases.items():
        mean = f"bn_{name}.mean" if name == "conv1" else f"bn{name.removeprefix('res')}.mean"
        if mean not in arrays or arrays[mean].shape != bias.shape:
            raise InteropError(
                f"{where} has a bias in {name} and no normalization after it that could take it"
            )
        arrays[mean] = arrays[mean] - bias
    return arrays


def _net(where: str, arrays: dict[str, np.ndarray]) -> tuple[str, NameOf]:
    """Returns the name of the net, and the names of its arrays in the file."""
    found = [re.match(r"res(\d)([a-z])(\d*)_", name) for name in arrays]
    blocks = {(int(match[1]) - 1, match[2] + match[3]) for match in found if match}
    depths = tuple(sum(stage == number for number, _ in blocks) for stage in range(1, 5))
    kind = BottleneckBlock if any("_branch2c" in name for name in arrays) else BasicBlock
    depth = next((depth for depth, net in IMAGENET_STAGES.items() if net == (kind, depths)), None)
    heads = [name for name in arrays if name.startswith("fc") and name.endswith(".kernel")]
    if depth is None or len(heads) != 1 or "conv1.kernel" not in arrays:
        raise InteropError(
            f"{where} has {', '.join(map(str, depths))} blocks per stage after the authors' names, "
            f"{len(heads)} last layers, and "
            f"{'a' if 'conv1.kernel' in arrays else 'no'} conv1; allowed are ResNet-18 to 152"
        )
    head = heads[0].removesuffix(".kernel")
    counted = {
        stage for stage, name in blocks if name == "b1"
    }  # res3a, res3b1, res3b2, … in the deeper nets.

    def name_of(path: ArrayPath) -> str:
        *modules, leaf = path[1:]
        if modules == ["head"]:
            return f"{head}.{leaf}"
        if modules[0] == "stem":
            return f"{'conv1' if modules[1] == 'conv' else 'bn_conv1'}.{leaf}"
        stage, block = int(modules[0].removeprefix("stage")), int(modules[1].removeprefix("block"))
        letter = ("a" if block == 1 else f"b{block - 1}") if stage in counted else chr(ord("a") + block - 1)
        part = re.fullmatch(r"(conv|norm|projection)(\d?)(_norm)?", modules[2])
        assert part
        branch = "branch1" if part[1] == "projection" else f"branch2{'abc'[int(part[2]) - 1]}"
        prefix = "bn" if part[1] == "norm" or part[3] else "res"
        return f"{prefix}{stage + 1}{letter}_{branch}.{leaf}"

    return f"resnet{depth}", name_of


def _mean(path: Path, mean: str | None) -> np.ndarray:
    """Returns the mean in RGB: float32[224, 224, 3], or [3]."""
    if mean is None:
        beside = sorted(file for file in path.parent.glob("*.binaryproto") if not is_junk(file.name))
        if len(beside) != 1:
            raise InteropError(
                f"the mean image of {path} is not in it, and {len(beside)} .binaryproto files are beside it; "
                "give "
                "--mean FILE.binaryproto or three numbers in pixels, red, green and blue: --mean "
                "123.7,116.3,103.5"
            )
        mean = os.fspath(beside[0])
    if numbers := re.fullmatch(",".join([r"(\d+(?:\.\d*)?)"] * 3), mean):
        return np.asarray([float(number) for number in numbers.groups()], np.float32)
    try:
        blob = read_blob(memoryview(Path(mean).read_bytes()))
        image = blob.reshape(blob.shape[-3:])[::-1].transpose(1, 2, 0)
    except (OSError, ValueError) as error:
        raise InteropError(
            f"--mean {mean} is neither a whole .binaryproto file nor three numbers ({error})"
        ) from error
    if image.shape[2] != 3 or not np.isfinite(image).all():
        raise InteropError(f"--mean {mean} has {image.shape[2]} channels; it must have 3, of finite numbers")
    if image.shape[:2] != (CAFFE_CROP, CAFFE_CROP):
        return np.ascontiguousarray(image.mean((0, 1), dtype=np.float64).astype(np.float32))
    return np.ascontiguousarray(image)
