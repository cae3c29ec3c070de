"""A stage whose identical blocks are one loop, so that the size of the program does not grow with depth."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from resnet_jax.models.blocks import NumberedBlock
from resnet_jax.models.rng_streams import RNG_STREAMS
from resnet_jax.models.stacking import STACKED


class ScannedStage(nn.Module):
    """A stage as a loop over the variables of its blocks, stacked from the second on.

    `resnet_jax.models.stacking` describes the variables.

    Attributes:
        depth, stride, block: As in Stage.
        remat: Blocks that are recomputed together in the backward pass; 0 keeps all activations.
    """

    depth: int
    stride: int
    block: NumberedBlock
    remat: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        x = self.block(1, stride=self.stride, name="block1")(x)
        if self.depth <= 2:
            return self.block(2, stride=1, name="block2")(x) if self.depth == 2 else x
        variables = {name: tree[STACKED] for name, tree in self.variables.items() if STACKED in tree}
        mutable = [name for name in variables if name != "params" and self.is_mutable_collection(name)]
        keys = {name: self.make_rng(name) for name in RNG_STREAMS if self.has_rng(name)}

        def one_block(x: Array, of_block: tuple[PyTree, Array]) -> tuple[Array, PyTree]:
            variables, number = of_block
            rngs = {name: jax.random.fold_in(key, number) for name, key in keys.items()}
            block = self.block(number, stride=1, parent=None)
            return block.apply(variables, x, mutable=mutable, rngs=rngs)

        stacked = variables, jnp.arange(2, self.depth + 1)
        x, updated = scan_blocks(one_block, x, stacked, remat=self.remat)
        for name in mutable:
            self.put_variable(name, STACKED, updated[name])
        return x


def scan_blocks(
    body: Callable[[Array, PyTree], tuple[Array, PyTree]], carry: Array, stacked: PyTree, *, remat: int
) -> tuple[Array, PyTree]:
    """Returns `jax.lax.scan(body, carry, stacked)`; with `remat`, recomputes this many iterations at once.

    In the backward pass, activations are then kept between groups of `remat` iterations only, and those of
    one group at a time are computed again: of N iterations, N / remat carries and what `remat` iterations
    hold (arXiv 1604.06174).
    """

    def run(carry: Array, xs: PyTree) -> tuple[Array, PyTree]:
        return jax.lax.scan(body, carry, xs)

    count = jax.tree.leaves(stacked)[0].shape[0]
    if not remat:
        return run(carry, stacked)
    recomputed = jax.checkpoint(run, prevent_cse=False)
    whole = count - count % remat
    groups = jax.tree.map(lambda x: x[:whole].reshape(-1, remat, *x.shape[1:]), stacked)
    carry, results = jax.lax.scan(recomputed, carry, groups)
    results = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), results)
    if whole == count:
        return carry, results
    carry, rest = jax.checkpoint(run)(carry, jax.tree.map(lambda x: x[whole:], stacked))
    return carry, jax.tree.map(lambda *x: jnp.concatenate(x), results, rest)
