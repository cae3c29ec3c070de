"""Exports a network as an ONNX graph with one node per layer, under the names of this package."""

import dataclasses
import json
from typing import Any

import flax.linen as nn
import numpy as np

from resnet_jax.files import JsonObject
from resnet_jax.inference.trained import Trained
from resnet_jax.interop.export_metadata import METADATA
from resnet_jax.interop.foreign_weights import ArrayPath, InteropError, to_foreign
from resnet_jax.models.blocks import BasicBlock, BottleneckBlock, alike
from resnet_jax.models.layers import Conv, unwrap_factory
from resnet_jax.models.normalization import BatchNorm, begin_at_zero
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.shortcuts import SHORTCUTS, no_shortcut
from resnet_jax.models.stems import CifarStem, ImageNetStem
from resnet_jax.models.vgg import VGG

OPSET, IR_VERSION = 17, 8  # Of the standard: old enough for runtimes since 2022.

INPUT, OUTPUT = "images", "logits"


def to_onnx(trained: Trained, record: JsonObject) -> bytes:
    """Returns an ONNX model from `images` uint8[batch, crop, crop, 3] to `logits` float32[batch, classes].

    Raises:
        InteropError: The package onnx is not installed, or the net has a part that is not known here.
    """
    try:
        import onnx
    except ImportError:
        raise InteropError(
            "format onnx needs the package onnx, which is not installed; run `pip install 'resnet-jax[onnx]'`"
        ) from None
    graph = _Graph(to_foreign(trained.variables))
    preprocessing, net = trained.preprocessing, trained.model
    x = graph.node("Cast", [INPUT], "pixels", to=1)  # FLOAT
    x = graph.node("Sub", [x, graph.constant("mean", preprocessing.image_mean)], "centered")
    if preprocessing.input_scale is not None:
        x = graph.node(
            "Mul", [x, graph.constant("scale", np.asarray(preprocessing.input_scale, np.float32))], "scaled"
        )
    x = graph.node("Transpose", [x], "channels_first", perm=[0, 3, 1, 2])
    if isinstance(net, VGG):
        _vgg(graph, net, x)
    elif isinstance(net, ResNet):
        _residual(graph, net, x)
    else:
        raise InteropError(
            f"format onnx knows residual, plain and VGG nets, and this is a {type(net).__name__}"
        )
    side, classes = preprocessing.crop, trained.model_arguments["num_classes"]
    tensor, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node(kind, inputs, [name], name, **attributes)
                for kind, inputs, name, attributes in graph.nodes
            ],
            trained.model_arguments["name"],
            [tensor(INPUT, kinds.UINT8, ["batch", side, side, 3])],
            [tensor(OUTPUT, kinds.FLOAT, ["batch", classes])],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        producer_name="resnet_jax",
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    onnx.helper.set_model_props(model, {METADATA: json.dumps(record)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@dataclasses.dataclass
class _Graph:
    """The nodes and constants of a graph in NCHW; each method adds a layer and returns its output's name."""

    arrays: dict[ArrayPath, np.ndarray]
    constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = dataclasses.field(default_factory=list)

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append((kind, inputs, name, attributes))
        return name

    def constant(self, name: str, array: Any) -> str:
        self.constants[name] = np.asarray(array)
        return name

    def weights(self, path: ArrayPath, *names: str) -> list[str]:
        collections = {"mean": "batch_stats", "var": "batch_stats"}
        return [
            self.constant("/".join((*path, name)), self.arrays[collections.get(name, "params"), *path, name])
            for name in names
        ]

    def conv(self, x: str, *path: str, stride: int = 1, groups: int = 1, bias: bool = False) -> str:
        padding = self.arrays["params", *path, "kernel"].shape[2] // 2
        return self.node(
            "Conv",
            [x, *self.weights(path, "kernel", *(["bias"] if bias else []))],
            "/".join(path),
            strides=[stride] * 2,
            pads=[padding] * 4,
            group=groups,
        )

    def norm(self, x: str, *path: str, epsilon: float) -> str:
        inputs = [x, *self.weights(path, "scale", "bias", "mean", "var")]
        return self.node("BatchNormalization", inputs, "/".join(path), epsilon=epsilon)

    def relu(self, x: str, name: str | None = None) -> str:
        return self.node("Relu", [x], name or f"{x}/relu")

    def max_pool(self, x: str, name: str, *, size: int, stride: int, padding: tuple[int, int]) -> str:
        pads = [side for side in padding for _ in range(2)]
        return self.node("MaxPool", [x], name, kernel_shape=[size] * 2, strides=[stride] * 2, pads=pads)

    def dense(self, x: str, layer: str, name: str | None = None) -> str:
        return self.node("Gemm", [x, *self.weights((layer,), "kernel", "bias")], name or layer, transB=1)

    def subsample_and_pad(self, x: str, name: str, *, stride: int, extra: int) -> str:
        """Adds option A where dimensions rise: every stride-th pixel, and zeros for the new channels."""
        slices = {
            "starts": np.full(2, 0),
            "ends": np.full(2, np.iinfo(np.int64).max),
            "axes": np.array([2, 3]),
            "steps": np.full(2, stride),
        }
        inputs = [self.constant(f"{name}/{part}", numbers) for part, numbers in slices.items()]
        x = self.node("Slice", [x, *inputs], f"{name}/subsampled")
        pads = self.constant(f"{name}/pads", np.array([0, 0, 0, 0, 0, extra, 0, 0]))
        return self.node("Pad", [x, pads], name)


def _vgg(graph: _Graph, model: VGG, x: str) -> None:
    for stage, depth in enumerate(model.stage_depths, start=1):
        for index in range(1, depth + 1):
            x = graph.relu(graph.conv(x, f"stage{stage}_conv{index}", bias=True))
        x = graph.max_pool(x, f"stage{stage}", size=2, stride=2, padding=(0, 0))
    x = graph.node("Flatten", [x], "flattened")
    for layer in ("hidden1", "hidden2"):
        x = graph.relu(graph.dense(x, layer))
    graph.dense(x, "head", OUTPUT)


def _residual(graph: _Graph, model: ResNet, x: str) -> None:
    (stem, stem_options), (norm, norm_options) = unwrap_factory(model.stem), unwrap_factory(model.norm)
    if norm is begin_at_zero:  # The scale is among the weights, however it began.
        norm, norm_options = unwrap_factory(norm_options["norm"])
    block, block_options = unwrap_factory(model.block)
    parts = {
        "stem": stem in (ImageNetStem, CifarStem),
        "block": block in (BasicBlock, BottleneckBlock),
        "norm": norm is BatchNorm,
        "conv": model.conv is Conv,
        "shortcut": model.shortcut in SHORTCUTS.values(),
        "activation": model.activation is nn.relu,
        "residual": "residual" not in block_options and model.vary is alike,
    }
    if others := [part for part, known in parts.items() if not known]:
        raise InteropError(
            "format onnx knows the blocks and layers of the paper, and this net has another "
            f"{' and '.join(others)}; "
            "export it as stablehlo, which knows every net"
        )
    epsilon = norm_options.get("epsilon", BatchNorm.epsilon)
    x = graph.conv(x, "stem", "conv", stride=1 if stem is CifarStem else 2)
    x = graph.relu(graph.norm(x, "stem", "norm", epsilon=epsilon))
    if stem is ImageNetStem:
        padding = stem_options.get("pool_padding", ImageNetStem.pool_padding)
        x = graph.max_pool(x, "stem", size=3, stride=2, padding=padding)
    stride_on = block_options.get("stride_on", BottleneckBlock.stride_on)
    kind = BottleneckBlock if block is BottleneckBlock else BasicBlock
    into = model.stem_width or model.width
    for stage, depth in enumerate(model.stage_depths, start=1):
        channels = model.width * 2 ** (stage - 1) * kind.expansion
        for index in range(1, depth + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            strides = [1] * kind.convolutions
            strides[1 if kind is BottleneckBlock and stride_on == "3x3" else 0] = stride
            at = (f"stage{stage}", f"block{index}")
            y = _branch(graph, x, at, strides, groups=block_options.get("groups", 1), epsilon=epsilon)
            if model.shortcut is not no_shortcut:
                shortcut = _shortcut(graph, x, at, stride=stride, extra=channels - into, epsilon=epsilon)
                y = graph.node("Add", [y, shortcut], "/".join((*at, "sum")))
            x, into = graph.relu(y, "/".join(at)), channels
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x], "average")], "pooled")
    graph.dense(x, "head", OUTPUT)


def _branch(graph: _Graph, x: str, at: ArrayPath, strides: list[int], *, groups: int, epsilon: float) -> str:
    """Adds F(x): convolutions, normalizations, activations; `groups` are of the second convolution."""
    for number, stride in enumerate(strides, start=1):
        convolved = graph.conv(x, *at, f"conv{number}", stride=stride, groups=groups if number == 2 else 1)
        x = graph.norm(convolved, *at, f"norm{number}", epsilon=epsilon)
        if number < len(strides):
            x = graph.relu(x)
    return x


def _shortcut(graph: _Graph, x: str, at: ArrayPath, *, stride: int, extra: int, epsilon: float) -> str:
    """Adds the path around a block: a projection if it has weights, else option A or the identity."""
    if ("params", *at, "projection", "kernel") in graph.arrays:
        return graph.norm(
            graph.conv(x, *at, "projection", stride=stride), *at, "projection_norm", epsilon=epsilon
        )
    if stride == 1 and not extra:
        return x
    return graph.subsample_and_pad(x, "/".join((*at, "shortcut")), stride=stride, extra=extra)
