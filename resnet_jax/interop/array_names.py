"""The names of our arrays in PyTorch's libraries, for import and export."""

import re

from resnet_jax.interop.foreign_weights import ArrayPath, NameOf

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
"""In PyTorch the kernel of a convolution and the scale of a normalization are both called weight."""

TORCHVISION = {
    "stem/conv": "conv1",
    "stem/norm": "bn1",
    "conv": "layer{stage}.{block0}.conv{layer}",
    "norm": "layer{stage}.{block0}.bn{layer}",
    "projection": "layer{stage}.{block0}.downsample.0",
    "projection_norm": "layer{stage}.{block0}.downsample.1",
    "head": "fc",
}
"""Torchvision's residual nets, and timm's; our CIFAR nets are exported under the same names."""

HUGGING_FACE = {
    "stem/conv": "resnet.embedder.embedder.convolution",
    "stem/norm": "resnet.embedder.embedder.normalization",
    "conv": "resnet.encoder.stages.{stage0}.layers.{block0}.layer.{layer0}.convolution",
    "norm": "resnet.encoder.stages.{stage0}.layers.{block0}.layer.{layer0}.normalization",
    "projection": "resnet.encoder.stages.{stage0}.layers.{block0}.shortcut.convolution",
    "projection_norm": "resnet.encoder.stages.{stage0}.layers.{block0}.shortcut.normalization",
    "head": "classifier.1",
}
"""ResNetForImageClassification of transformers."""

IN_BLOCK = re.compile(
    r"stage(?P<stage>\d+)/block(?P<block>\d+)/(?P<kind>conv|norm|projection|projection_norm)(?P<layer>\d*)"
)


def residual(table: dict[str, str]) -> NameOf:
    """Returns the names of a residual net's arrays by a table; others keep our name, with dots."""

    def name_of(path: ArrayPath) -> str:
        module = "/".join(path[1:-1])
        match = IN_BLOCK.fullmatch(module)
        if match:
            stage, block, layer = int(match["stage"]), int(match["block"]), int(match["layer"] or 0)
            numbers = {
                "stage": stage,
                "stage0": stage - 1,
                "block0": block - 1,
                "layer": layer,
                "layer0": layer - 1,
            }
            return f"{table[match['kind']].format(**numbers)}.{LEAVES[path[-1]]}"
        if module not in table:
            return ".".join(path[1:])
        return f"{table[module]}.{LEAVES[path[-1]]}"

    return name_of


def vgg(stage_depths: tuple[int, ...]) -> NameOf:
    """Returns torchvision's names of a VGG net, whose convolutions, ReLUs and pools are numbered."""
    modules = {"hidden1": "classifier.0", "hidden2": "classifier.3", "head": "classifier.6"}
    number = 0
    for stage, depth in enumerate(stage_depths, start=1):
        for index in range(1, depth + 1):
            modules[f"stage{stage}_conv{index}"] = f"features.{number}"
            number += 2
        number += 1
    return lambda path: f"{modules[path[1]]}.{LEAVES[path[-1]]}"
