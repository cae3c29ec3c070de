"""State dicts as training scripts leave them, under the names of torchvision's networks.

Prefixes of wrappers are removed, averaged weights are recognized, and the last layer is found, whatever it is
called and whatever lies around it.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

StateDict = Mapping[str, np.ndarray]

AVERAGED = "n_averaged"  # Counter of torch.optim.swa_utils.AveragedModel, beside the weights.
_KEPT_PREFIXES = ("features.", "resnet.")  # They belong to the names of VGG and of transformers.
_HEAD = re.compile(r"(fc|classifier|linear|head|last_linear|logits)((?:\.\w+)*)\.(weight|bias)")
_CIFAR_SHORTCUT = re.compile(r"(layer\d+\.\d+)\.shortcut\.(0|1)\.")


@dataclasses.dataclass(frozen=True)
class Head:
    """The last layer of a state dict.

    Attributes:
        weight: float [classes, features]; None if there is no layer, or not exactly one.
        bias: float [classes]; None if the layer has none.
        names: Names of all arrays of the last layers.
    """

    weight: np.ndarray | None
    bias: np.ndarray | None
    names: tuple[str, ...]


def without_wrappers(arrays: StateDict) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns arrays without the prefixes that all names share, and notes that say which were removed.

    Example:
        >>> without_wrappers({"module.model.conv1.weight": w, "module.model.fc.bias": b})[0].keys()
        dict_keys(['conv1.weight', 'fc.bias'])
    """
    found = {name: array for name, array in arrays.items() if name != AVERAGED}
    removed = ""
    while prefix := _shared_prefix(found):
        removed += prefix
        found = {name.removeprefix(prefix): array for name, array in found.items()}
    notes: tuple[str, ...] = (f"the prefix {removed!r} of all names is removed",) if removed else ()
    if len(found) < len(arrays) and AVERAGED in arrays:
        notes += (f"averaged weights ({AVERAGED} is left out)",)
    return found, notes


def _shared_prefix(arrays: StateDict) -> str:
    first = next(iter(arrays), "")
    prefix = first.partition(".")[0] + "."
    single = len({name.rpartition(".")[0] for name in arrays}) < 2  # The arrays of one layer alone.
    shared = all(name.startswith(prefix) and name != prefix for name in arrays)
    return prefix if shared and not single and prefix not in _KEPT_PREFIXES else ""


def split_head(arrays: StateDict) -> tuple[dict[str, np.ndarray], Head]:
    """Returns a residual network's arrays without those of the last layer, and the last layer.

    The last layer is called fc, classifier, linear or head, and may be within a Sequential with others that
    have no weights, as in `fc.1.weight` of Sequential(Dropout, Linear).
    """
    of_head = {name: array for name, array in arrays.items() if _HEAD.fullmatch(name)}
    rest = {name: array for name, array in arrays.items() if name not in of_head}
    weights = [name for name, array in of_head.items() if name.endswith(".weight") and array.ndim == 2]
    biases = [name for name, array in of_head.items() if name.endswith(".bias") and array.ndim == 1]
    others = len(of_head) - len(weights) - len(biases)
    if len(weights) != 1 or len(biases) > 1 or others:
        return rest, Head(None, None, tuple(of_head))
    if biases and biases[0].removesuffix(".bias") != weights[0].removesuffix(".weight"):
        return rest, Head(None, None, tuple(of_head))
    bias = of_head[biases[0]] if biases else None
    return rest, Head(of_head[weights[0]], bias, tuple(of_head))


def cifar_names(arrays: StateDict) -> dict[str, np.ndarray]:
    """Returns arrays of a CIFAR network with `downsample` in place of `shortcut`, as torchvision says it."""
    return {_CIFAR_SHORTCUT.sub(r"\1.downsample.\2.", name): array for name, array in arrays.items()}
