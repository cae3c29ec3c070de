"""Two layouts of a net's variables: blocks apart, or the identical blocks of a stage stacked.

`stage1/block2/conv1/kernel`, `stage1/block3/conv1/kernel`, … are slices of `stage1/blocks/conv1/kernel`,
whose first axis counts blocks from the second on. The first block of a stage may have another shape or stride
and stays as it is, and so does a stage of two. Both directions only copy, and apply to everything that is
named like the variables: gradients, momentum, checkpoints.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

STACKED = "blocks"
_BLOCK = re.compile(r"((?:.*/)?stage\d+)/block(\d+)/(.*)")
_STACK = re.compile(rf"((?:.*/)?stage\d+)/{STACKED}/(.*)")

A = TypeVar("A", Array, np.ndarray)


def stack_blocks(variables: PyTree) -> PyTree:
    """Returns variables (nested dictionaries) with every block apart as those of scanned stages.

    Example:
        >>> scanned = model.clone(stage=ScannedStage)
        >>> logits = scanned.apply(stack_blocks(variables), images)
    """
    return unflatten_dict(stack_arrays(flatten_dict(variables, keep_empty_nodes=True, sep="/")), sep="/")


def unstack_blocks(variables: PyTree) -> PyTree:
    """Returns variables (nested dictionaries) of scanned stages as those with every block apart.

    Example:
        >>> logits = model.apply(unstack_blocks(stack_blocks(variables)), images)
    """
    return unflatten_dict(unstack_arrays(flatten_dict(variables, keep_empty_nodes=True, sep="/")), sep="/")


def stack_arrays(arrays: Mapping[str, A]) -> dict[str, A]:
    """Returns arrays by path with the blocks of every stage stacked, from the second on."""
    found: dict[str, dict[int, A]] = defaultdict(dict)
    stacked = {}
    for path, array in arrays.items():
        if (match := _BLOCK.fullmatch(path)) and int(match[2]) > 1:
            found[f"{match[1]}/{STACKED}/{match[3]}"][int(match[2])] = array
        else:
            stacked[path] = array
    for path, slices in found.items():
        if len(slices) == 1:
            stacked[path.replace(f"/{STACKED}/", "/block2/")] = slices[2]
            continue
        on_host = all(isinstance(array, np.ndarray) for array in slices.values())
        stacked[path] = (np if on_host else jnp).stack([slices[number] for number in sorted(slices)])
    return stacked


def unstack_arrays(arrays: Mapping[str, A]) -> dict[str, A]:
    """Returns arrays by path with blocks apart; on the host, they are views of the given arrays."""
    single: dict[str, A] = {}
    for path, array in arrays.items():
        if match := _STACK.fullmatch(path):
            single |= {
                f"{match[1]}/block{index + 2}/{match[2]}": array[index] for index in range(array.shape[0])
            }
        else:
            single[path] = array
    return single


def is_stacked(arrays: Iterable[str]) -> bool:
    """Tells whether arrays by path hold stacked blocks."""
    return any(_STACK.fullmatch(path) for path in arrays)
