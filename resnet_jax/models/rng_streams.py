"""Random numbers of a net in training: the two sequences that `apply` takes as `rngs`.

What draws from "examples", whose key is the same on every device, folds the position of an example in the
global batch into it (`example_keys`), so that a result does not depend on the topology: stochastic depth
does. "dropout" has another key on every device: what draws from it for a whole batch, such as `nn.Dropout`,
does depend on it.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

EXAMPLES_RNG = "examples"
RNG_STREAMS = ("dropout", EXAMPLES_RNG)


def example_keys(key: Array, count: int, axis_name: str | None) -> Array:
    """Returns a key for each of this device's examples, from one that is the same on all devices.

    Args:
        key: Key of the step and the layer.
        count: Number of examples on this device.
        axis_name: Mapped axis that the global batch is spread over; None where it is all on one device.
    """
    positions = jnp.arange(count) + (lax.axis_index(axis_name) * count if axis_name else 0)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
