"""Weights of foreign nets from a stated seed, by the names that they have there.

No other framework is needed for them.
"""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.models.parity import draw

STAGES = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
Arrays = dict[str, np.ndarray]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def shapes(
    kind: str, depths: Sequence[int], *, width: int = 64, classes: int = 10
) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of a residual net by torchvision's name, written down here once
    more."""
    found: dict[str, tuple[int, ...]] = {}

    def layer(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        found[f"{conv}.weight"] = shape
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            found[f"{norm}.{leaf}"] = (shape[0],)

    layer("conv1", "bn1", (width, 3, 7, 7))
    into = width
    for stage, depth in enumerate(depths):
        planes = width * 2**stage
        out = planes * (4 if kind == "bottleneck" else 1)
        for block in range(depth):
            at = f"layer{stage + 1}.{block}"
            sizes = [(planes, into, 1), (planes, planes, 3), (out, planes, 1)]
            if kind == "basic":
                sizes = [(planes, into, 3), (planes, planes, 3)]
            for number, (to, of, size) in enumerate(sizes, start=1):
                layer(f"{at}.conv{number}", f"{at}.bn{number}", (to, of, size, size))
            if block == 0 and (stage > 0 or into != out):
                layer(f"{at}.downsample.0", f"{at}.downsample.1", (out, into, 1, 1))
            into = out
    found["fc.weight"], found["fc.bias"] = (classes, into), (classes,)
    return found


@functools.lru_cache(maxsize=2)
def weights(depth: int, **options: int) -> Arrays:
    """Returns a state dict of torchvision's for a depth of Table 1, with statistics far from their initial
    values.

    The last scale of each block is damped, so that activations stay of one size through 50 blocks.
    """
    kind, depths = STAGES[depth]
    arrays = {
        name: draw(name, shape).astype(np.float32) for name, shape in shapes(kind, depths, **options).items()
    }
    last = "bn3.weight" if kind == "bottleneck" else "bn2.weight"
    return {name: array * np.float32(0.3) if name.endswith(last) else array for name, array in arrays.items()}


def pixels(side: int = 64, count: int = 2) -> np.ndarray:
    """Returns images as a decoder gives them, uint8 [count, side, side, 3]."""
    return np.random.default_rng(7).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def hugging_face(arrays: Arrays) -> Arrays:
    """Returns a state dict of torchvision's under the names of transformers' ResNetForImageClassification."""
    kinds = {"conv": "convolution", "bn": "normalization"}

    def name_of(name: str) -> str:
        if block := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(\w+)", name):
            stage, number, kind, layer, leaf = block.groups()
            at = f"resnet.encoder.stages.{int(stage) - 1}.layers.{number}"
            if kind == "downsample.":
                return f"{at}.shortcut.{('convolution', 'normalization')[int(layer)]}.{leaf}"
            return f"{at}.layer.{int(layer) - 1}.{kinds[kind]}.{leaf}"
        module, leaf = name.split(".")
        return (
            f"classifier.1.{leaf}"
            if module == "fc"
            else f"resnet.embedder.embedder.{kinds[module[:-1]]}.{leaf}"
        )

    return {name_of(name): array for name, array in arrays.items()}


def write_hugging_face(folder: Path, case: str) -> Path:
    """Writes a net as `save_pretrained` does, with the names of its classes and what its images are to be."""
    depth, _, stride_on = case.partition("_")
    kind, depths = STAGES[int(depth)]
    arrays = weights(int(depth))
    classes = len(arrays["fc.bias"])
    config = {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "layer_type": kind,
        "depths": depths,
        "embedding_size": 64,
        "hidden_sizes": [64 * (4 if kind == "bottleneck" else 1) * 2**stage for stage in range(4)],
        "hidden_act": "relu",
        "num_channels": 3,
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": stride_on == "1x1",
        "id2label": {str(label): f"thing {label}" for label in range(classes)},
        "label2id": {f"thing {label}": label for label in range(classes)},
    }
    processor = {
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "size": {"shortest_edge": 224},
        "crop_pct": 0.875,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    save_file(hugging_face(arrays), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
