"""Builds a network from the arrays of another framework, each used once; mismatches are listed."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from flax.typing import VariableDict

from resnet_jax.interop.foreign_weights import (
    ArrayPath,
    Foreign,
    InteropError,
    Shape,
    foreign_shape,
    last_channels,
    to_ours,
)
from resnet_jax.models import ModelError, create_model
from resnet_jax.models.layers import he_normal
from resnet_jax.models.registry import ModelArguments

HEAD_PATH = ("params", "head")
SHOWN = 6  # Of what does not fit.
COUNTER = "num_batches_tracked"  # Ends the names of PyTorch's counters of batches, which are no weights.


@dataclasses.dataclass(frozen=True)
class Imported:
    """A network of this package with the weights of another framework.

    Attributes:
        model: The net.
        model_arguments: Arguments of create_model that build it.
        variables: `params` and `batch_stats`.
        notes: What a user should know.
    """

    model: nn.Module
    model_arguments: ModelArguments
    variables: VariableDict
    notes: tuple[str, ...]


def assemble(foreign: Foreign, *, num_classes: int | None = None, seed: int = 0) -> Imported:
    """Returns the net and its variables.

    Args:
        foreign: What was read.
        num_classes: Number of classes. Defaults to the source's; another number gives a fresh head.
        seed: Seed of a fresh head.

    Raises:
        InteropError: Arrays are missing, left over, of another shape or not finite; they are listed.
    """
    fields = {name: value for name, value in foreign.model.items() if name != "num_classes"}
    depths, held = fields.get("stage_depths") or (), len(foreign.arrays)
    if sum(depths) > held:  # Before so many are built.
        raise InteropError(f"{foreign.where} holds {held} arrays, too few for {depths} blocks per stage")
    classes = _classes(foreign)
    fresh = num_classes is not None and num_classes != classes
    if classes is None and num_classes is None:
        has = f"the last layers {', '.join(foreign.left_head[:4])}, not one linear layer"
        raise InteropError(
            f"{foreign.where} has {has if foreign.left_head else 'no last layer'}; give --classes N "
            "for a fresh one"
        )
    arguments = {**fields, "num_classes": num_classes if fresh else classes, "dtype": "float32"}
    try:
        model = create_model(**arguments)
        side = foreign.preprocessing.crop
        image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), image)
        shapes = {path: array.shape for path, array in flatten_dict(variables).items()}
    except (ModelError, TypeError, ValueError) as error:
        raise InteropError(
            f"{foreign.where} describes a net that cannot be built: {str(error).splitlines()[0]}"
        ) from error
    with np.errstate(over="ignore", invalid="ignore"):  # What is not finite is listed.
        arrays = _match(foreign, shapes, arguments["name"], fresh=fresh)
    notes = [*foreign.notes, f"{len(arrays)} arrays of {foreign.where} used, each once"]
    if counters := sum(name.endswith(COUNTER) for name in foreign.arrays):
        notes.append(f"{counters} counters of batches left out ({COUNTER})")
    if foreign.class_names and classes is not None and len(foreign.class_names) != classes:
        raise InteropError(
            f"{foreign.where} names {len(foreign.class_names)} classes, and its last layer has {classes}"
        )
    if fresh:
        kernel, bias = (*HEAD_PATH, "kernel"), (*HEAD_PATH, "bias")
        drawn = he_normal(jax.random.key(seed), shapes[kernel])
        arrays |= {kernel: np.asarray(drawn), bias: np.zeros(shapes[bias], np.float32)}
        instead = f" instead of {classes}" if classes is not None else ""
        notes.append(f"the last layer is fresh: {num_classes} classes{instead}; fine-tune before it is used")
        notes += [f"left out: {', '.join(foreign.left_head)}"] if foreign.left_head else []
    return Imported(model, arguments, unflatten_dict(arrays), tuple(notes))


def _classes(foreign: Foreign) -> int | None:
    """Returns the length of the last layer that was read; None if there is none."""
    kernel = foreign.arrays.get(foreign.name_of((*HEAD_PATH, "kernel")))
    bias = foreign.arrays.get(foreign.name_of((*HEAD_PATH, "bias")))
    found = bias if bias is not None and bias.ndim == 1 else kernel
    return None if found is None or not found.ndim else int(found.shape[0])


def _match(
    foreign: Foreign, shapes: dict[ArrayPath, Shape], model: str, *, fresh: bool
) -> dict[ArrayPath, np.ndarray]:
    """Returns the arrays of the network; with a fresh last layer, those of the source's are not looked at."""
    wrong, matched = [], {}
    channels = last_channels(shapes)
    left = {name: array for name, array in foreign.arrays.items() if not name.endswith(COUNTER)}
    for path, shape in shapes.items():
        name = foreign.name_of(path)
        array = left.pop(name, None)
        if fresh and path[:2] == HEAD_PATH:
            continue
        if array is None:
            wrong.append(f"{name} is missing")
        elif array.shape != foreign_shape(shape):
            wrong.append(f"{name} is {list(array.shape)}, expected {list(foreign_shape(shape))}")
        elif not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16":
            wrong.append(f"{name} holds {array.dtype.name}, expected floating-point numbers")
        elif not np.isfinite(array.astype(np.float32)).all():
            wrong.append(f"{name} holds numbers that are not finite")
        else:
            matched[path] = to_ours(path, array.astype(np.float32), channels)
    wrong += [f"{name} is left over" for name in left]
    if wrong:
        shown = "; ".join(wrong[:SHOWN]) + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
        raise InteropError(f"{foreign.where} does not fit {model}: {shown}")
    return matched
