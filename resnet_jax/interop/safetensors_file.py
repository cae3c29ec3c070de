"""Exports weights as a safetensors file under torchvision's names, which PyTorch loads strictly."""

import json

import safetensors.numpy
from flax.traverse_util import flatten_dict

from resnet_jax.files import JsonObject
from resnet_jax.inference.trained import Trained
from resnet_jax.interop.array_layouts import to_foreign
from resnet_jax.interop.assembly import last_channels
from resnet_jax.interop.export_metadata import METADATA, names_of
from resnet_jax.models.blocks import BottleneckBlock
from resnet_jax.models.registry import IMAGENET_STAGES, VGG_STAGES, model_class

IN_TORCHVISION = {*(f"resnet{depth}" for depth in IMAGENET_STAGES), *(f"vgg{depth}" for depth in VGG_STAGES)}
BOTTLENECKS = {f"resnet{depth}" for depth, (block, _) in IMAGENET_STAGES.items() if block is BottleneckBlock}
VGG_INPUT = 224
"""Pixels of a side, for which torchvision's VGG nets are built."""


def to_safetensors(trained: Trained, record: JsonObject) -> bytes:
    """Returns a safetensors file: float32 arrays in PyTorch's layout, and the record in its metadata.

    PyTorch's counters of batches (`num_batches_tracked`) are not in it, and `load_state_dict` does not ask
    for them.
    """
    name_of = names_of(trained.model_arguments)
    arrays = flatten_dict(trained.variables)
    channels = last_channels({path: array.shape for path, array in arrays.items()})
    renamed = {name_of(path): to_foreign(path, array, channels) for path, array in arrays.items()}
    return safetensors.numpy.save(
        renamed, {METADATA: json.dumps(record)}
    )  # One key: the order of several is not defined.


def differences_from_torchvision(trained: Trained) -> list[str]:
    """Returns how the network differs from torchvision's of the same name, as sentences, if it does."""
    arguments = trained.model_arguments
    name = arguments["name"]
    if name not in IN_TORCHVISION or any(
        arguments.get(option) for option in ("stage_depths", "width", "hidden")
    ):
        return [
            f"torchvision has no {name} of this shape; the names follow its manner, for `resnet-jax import` "
            "and nets like it"
        ]
    if changed := [option for option in ("variants", "block", "norm", "activation") if arguments.get(option)]:
        return [
            f"torchvision's {name} is without what this net has in {' and '.join(changed)}: it does not load "
            "there"
        ]
    if arguments.get("shortcut") not in (None, "B"):
        return [
            f"torchvision's {name} has shortcut option B, and this net {arguments['shortcut']}: it does not "
            "load there"
        ]
    found = []
    if not model_class(name).takes_any_size and trained.preprocessing.crop != VGG_INPUT:
        found.append(
            f"torchvision's {name} is for images of {VGG_INPUT} pixels, and this net for "
            f"{trained.preprocessing.crop}"
        )
    if name in BOTTLENECKS and arguments.get("stride_on", "1x1") == "1x1":
        found.append(
            "torchvision's bottlenecks have the stride on the 3x3, and this net on the 1x1: move it after "
            "loading"
        )
    if arguments.get("pool", "centered") != "centered":
        found.append("torchvision's maximum after conv1 is padded on all sides, and this net's as in Caffe")
    if arguments.get("epsilon", 1e-5) != 1e-5:
        found.append(
            f"torchvision's normalization has epsilon 1e-5, and this net {arguments['epsilon']}: set it "
            "after loading"
        )
    return found
