"""A batch in parts, one after the other: the memory of a part, the result of the whole."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

OfPart = Callable[[PyTree, PyTree, Int[Array, ""]], tuple[PyTree, PyTree]]
"""(part of the batch, carried, number of the part) → (what is averaged, carried)."""


def mean_over_parts(function: OfPart, batch: PyTree, carried: PyTree, *, parts: int) -> tuple[PyTree, PyTree]:
    """Returns the mean of a function over the parts of a batch, and what it carried from part to part.

    Args:
        function: Function of one part.
        batch: Arrays [n, …], cut into `parts` slices of n / parts.
        carried: Given to the first part.
        parts: Their number; the program does not grow with it.
    """
    if parts == 1:
        return function(batch, carried, jnp.int32(0))
    cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    shapes, _ = jax.eval_shape(function, jax.tree.map(lambda x: x[0], cut), carried, jnp.int32(0))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(
        sums: tuple[PyTree, PyTree], numbered: tuple[PyTree, Array]
    ) -> tuple[tuple[PyTree, PyTree], None]:
        total, carried = sums
        result, carried = function(numbered[0], carried, numbered[1])
        return (jax.tree.map(jnp.add, total, result), carried), None

    (total, carried), _ = lax.scan(add, (zero, carried), (cut, jnp.arange(parts)))
    return jax.tree.map(lambda x: x / parts, total), carried
