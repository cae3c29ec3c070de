"""The paper's networks by name: families, depths and blocks per stage (Table 1, §4.2)."""

import difflib
import fnmatch
import re
from collections.abc import Iterable

from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.layers import ModelError
from resnet_jax.models.variants import Attributes

# Block and blocks per stage of the residual nets of Table 1, by depth.
IMAGENET_STAGES = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (BottleneckBlock, (3, 4, 6, 3)),
    101: (BottleneckBlock, (3, 4, 23, 3)),
    152: (BottleneckBlock, (3, 8, 36, 3)),
}

PLAIN_DEPTHS = (18, 34)
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)
VGG_STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the paper's networks that match a pattern with `*` and `?`.

    The CIFAR family takes every other depth 6n + 2 as well.

    Example:
        >>> list_models("*50*")
        ['resnet50']
    """
    names = [
        *(f"resnet{depth}" for depth in IMAGENET_STAGES),
        *(f"plain{depth}" for depth in PLAIN_DEPTHS),
        *(f"vgg{depth}" for depth in VGG_STAGES),
        *(f"cifar_resnet{depth}" for depth in CIFAR_DEPTHS),
        *(f"cifar_plain{depth}" for depth in CIFAR_DEPTHS[:-1]),
    ]
    return fnmatch.filter(names, pattern)


def default_image_size(name: str) -> int:
    """Returns the side of the images that a net is meant for: 32 in the CIFAR family (§4.2), else 224."""
    return 32 if parse_name(name)[0].startswith("cifar") else 224


def parse_name(name: str) -> tuple[str, int]:
    """Returns the family and the depth of a name: ("cifar_resnet", 20).

    Raises:
        ModelError: There is no such family; the network that was meant is named if one is close.
    """
    match = re.fullmatch(r"(cifar_resnet|cifar_plain|resnet|plain|vgg)([1-9]\d*)", name)
    if not match:
        raise ModelError(
            f"unknown model {name!r}; {_guess(name)}names are resnetN, plainN, vggN, cifar_resnetN and "
            "cifar_plainN, for example resnet50 or cifar_resnet20; `resnet-jax list` prints them all"
        )
    return match[1], int(match[2])


def _guess(name: str) -> str:
    """Returns a question that names the network that was meant, if one is close."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    known = {model.replace("_", ""): model for model in list_models()}
    meant = known.get(plain) or known.get(f"cifar{plain}")
    close = [known[found] for found in difflib.get_close_matches(plain, known, 1, 0.75)]
    meant = meant or (close[0] if close else None)
    return f"did you mean {meant}? " if meant and meant != name else ""


def stages_by_name(name: str, family: str, depth: int, given: Iterable[int] | None) -> Attributes:
    """Returns the depths of the stages, and the block except for VGG: the paper's, or the given ones."""
    if given is not None:
        return _given_stages(name, family, depth, tuple(given))
    if family.startswith("cifar"):
        if depth < 8 or (depth - 2) % 6:
            lower = max(8, depth - (depth - 2) % 6)
            raise ModelError(
                f"unknown model {name!r}; depths of this family are 6n + 2 (§4.2), the nearest are "
                f"{lower} and {lower + 6}"
            )
        return {"block": BasicBlock, "stage_depths": ((depth - 2) // 6,) * 3}
    residual = {n: {"block": block, "stage_depths": stages} for n, (block, stages) in IMAGENET_STAGES.items()}
    of_family: dict[str, dict[int, Attributes]] = {
        "vgg": {number: {"stage_depths": stages} for number, stages in VGG_STAGES.items()},
        "resnet": residual,
        "plain": {number: residual[number] for number in PLAIN_DEPTHS},
    }
    if depth not in of_family[family]:
        known = ", ".join(map(str, of_family[family]))
        raise ModelError(f"unknown model {name!r}; {_guess(name)}depths of this family are {known}")
    return dict(of_family[family][depth])


def _given_stages(name: str, family: str, depth: int, stages: tuple[int, ...]) -> Attributes:
    if not stages or min(stages) < 1:
        raise ModelError(f"stage_depths must be at least 1 for every stage, and are {stages}")
    kinds = (BasicBlock, BottleneckBlock)
    residual: dict[int, Attributes] = {kind.convolutions * sum(stages) + 2: {"block": kind} for kind in kinds}
    options = {sum(stages) + 3: {}} if family == "vgg" else residual
    if depth not in options:
        raise ModelError(
            f"{name} does not have stage_depths {stages}, which add up to depth "
            f"{' or '.join(map(str, options))}"
        )
    return {"stage_depths": stages, **options[depth]}
