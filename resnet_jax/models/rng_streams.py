"""Random numbers of a net in training: the same whether blocks are scanned, and on any number of devices.

`apply` takes two sequences of them as `rngs`. What draws from "examples", whose key is the same on every device, folds the position
of an example in the global batch into it (`example_keys`), so that a result does not depend on the topology: stochastic depth does.
"dropout" has another key on every device: what draws from it for a whole batch, such as `nn.Dropout`, does depend on it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.scope import LazyRng
from jax import lax
from jaxtyping import Array

EXAMPLES_RNG = "examples"
Keys = dict[str, Any]
"""Keys by name of their sequence."""


def example_keys(key: Array, count: int, axis_name: str | None) -> Array:
    """Returns a key for each of this device's examples, from one that is the same on all devices.

    Args:
        key: Of the step and the layer.
        count: Of the examples on this device.
        axis_name: Mapped axis that the global batch is spread over; None where it is all on one device.
    """
    first = lax.axis_index(axis_name) * count if axis_name else 0
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(count))


def block_keys(stage: nn.Module, depth: int) -> Keys:
    """Returns for every sequence but that of the parameters a key for each of the stage's blocks: [depth]."""
    assert stage.scope is not None
    roots = {
        name: LazyRng.create(rng).as_jax_rng() for name, rng in stage.scope.rngs.items() if name != "params"
    }
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return {name: fold(root, jnp.arange(1, depth + 1)) for name, root in roots.items()}


def with_keys(block: nn.Module, keys: Keys) -> nn.Module:
    """Returns the block, a submodule, with these keys: as if it were applied by itself, as a scan does, with `rngs=keys`."""
    assert block.scope is not None
    block.scope.rngs = {**block.scope.rngs, **{name: LazyRng.create(key) for name, key in keys.items()}}
    return block
