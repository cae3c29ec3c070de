"""What happens to F(x) before it is added: squeeze and excitation, stochastic depth, a learned scale."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from resnet_jax.models.blocks import NumberedBlock
from resnet_jax.models.layers import ModelError, Residual, global_average_pool, he_normal, parameter_dtype
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.rng_streams import EXAMPLES_RNG, example_keys


def in_turn(*residuals: Residual | None) -> Residual:
    """Returns the composition of functions of F(x), in order; None is skipped."""

    def all_of_them(y: Array) -> Array:
        for residual in filter(None, residuals):
            y = residual(y)
        return y

    return all_of_them


def squeeze_and_excitation(y: Float[Array, "n h w c"], *, reduction: int) -> Float[Array, "n h w c"]:
    """Returns y with every channel times a gate computed from the means of all (arXiv 1709.01507, §3).

    Args:
        y: F(x) of a block.
        reduction: Number of channels of y for each unit of the hidden layer.
    """
    channels, stored = y.shape[-1], parameter_dtype(y.dtype)
    dense = partial(nn.Dense, kernel_init=he_normal, dtype=stored, param_dtype=stored)
    hidden = nn.relu(dense(max(1, channels // reduction), name="squeeze")(global_average_pool(y)))
    gate = nn.sigmoid(dense(channels, name="excite")(hidden))
    return y * gate[:, None, None].astype(y.dtype)


class ResidualScale(nn.Module):
    """One learned factor, 0 at first, so that a net begins as its shortcuts (arXiv 2002.10444, §4)."""

    @nn.compact
    def __call__(self, y: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return y * self.param("scale", nn.initializers.zeros, (1,), parameter_dtype(y.dtype)).astype(y.dtype)


def residual_scale(y: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Returns y times a learned number."""
    return ResidualScale(name="residual_scale")(y)


def stochastic_depth(
    block: partial[nn.Module],
    *,
    net: ResNet,
    before: int,
    train: bool,
    survival: float,
    then: Residual | None = None,
) -> NumberedBlock:
    """Makes blocks whose F(x) is dropped at random, deeper blocks more often; see `keep_at_random`.

    Args:
        block: Makes a block, of which only `residual` varies.
        net: The net, whose blocks are counted and whose sequence "examples" is drawn from.
        before: Number of blocks before the stage.
        train: Whether to draw; otherwise F(x) is scaled by the probability.
        survival: Probability p_L of the last block; p_l = 1 - l / L · (1 - p_L) (arXiv 1603.09382, eq. 4).
        then: What happens to F(x) afterwards.
    """
    if train and not net.has_rng(EXAMPLES_RNG):
        raise ModelError(
            f"stochastic depth draws numbers in training; give apply rngs={{{EXAMPLES_RNG!r}: key}}"
        )
    total = sum(net.stage_depths)
    depths = np.arange(1, total + 1) / total
    key_of = partial(jax.random.fold_in, net.make_rng(EXAMPLES_RNG)) if train else lambda _: None

    def make(number: int | Array, **options: object) -> nn.Module:
        share = 1 - jnp.asarray(depths)[before + number - 1] * (1 - survival)
        keep = partial(keep_at_random, share=share, key=key_of(number), axis_name=net.axis_name)
        return block(residual=in_turn(block.keywords.get("residual"), keep, then), **options)

    return make


def keep_at_random(
    y: Float[Array, "n h w c"], *, share: Float[Array, ""], key: Array | None, axis_name: str | None
) -> Float[Array, "n h w c"]:
    """Returns y with some examples set to 0 at random; without a key, y times the share that is kept.

    Args:
        y: F(x) of a block.
        share: Probability of keeping an example.
        key: Key of the step and the block, the same on all devices.
        axis_name: Mapped axis of the global batch.
    """
    if key is None:
        return y * share.astype(y.dtype)
    keys = example_keys(key, y.shape[0], axis_name)
    alive = jax.vmap(jax.random.bernoulli, in_axes=(0, None))(keys, share)
    return jnp.where(alive[:, None, None, None], y, 0)
