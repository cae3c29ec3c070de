"""What becomes of F(x) before it is added: squeeze and excitation, stochastic depth, a learned scale; one after the other."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.layers import ModelError, Residual, global_average_pool, he_normal, parameter_dtype
from resnet_jax.models.rng_streams import EXAMPLES_RNG, example_keys


def after(first: Residual | None, second: Residual) -> Residual:
    """Returns what does the first, where there is one, and then the second."""
    if first is None:
        return second

    def both(y: Array, **place: Any) -> Array:
        return second(first(y, **place), **place)

    return both


def squeeze_and_excitation(
    y: Float[Array, "n h w c"], *, reduction: int, **_: Any
) -> Float[Array, "n h w c"]:
    """Returns y with every channel times a gate between 0 and 1, computed from the means of all channels (arXiv 1709.01507, §3).

    Args:
        y: F(x) of a block.
        reduction: Channels of y to one of the hidden layer.
    """
    channels, stored = y.shape[-1], parameter_dtype(y.dtype)
    options: dict[str, Any] = {"kernel_init": he_normal, "dtype": stored, "param_dtype": stored}
    hidden = nn.relu(
        nn.Dense(max(1, channels // reduction), name="squeeze", **options)(global_average_pool(y))
    )
    gate = nn.sigmoid(nn.Dense(channels, name="excite", **options)(hidden))
    return y * gate[:, None, None].astype(y.dtype)


class ResidualScale(nn.Module):
    """One learned factor, 0 at first, so that a net begins as its shortcuts: [N, H, W, C] → the same (arXiv 2002.10444, §4)."""

    @nn.compact
    def __call__(self, y: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return y * self.param("scale", nn.initializers.zeros, (1,), parameter_dtype(y.dtype)).astype(y.dtype)


def residual_scale(y: Float[Array, "n h w c"], **_: Any) -> Float[Array, "n h w c"]:
    """Returns y times a learned number."""
    return ResidualScale(name="residual_scale")(y)


class Survival(nn.Module):
    """Leaves out y of some examples in training, drawn from "examples"; in evaluation scales it by the share that is kept.

    Attributes:
        share: That is kept, an array without axes.
        train: Whether to draw.
        axis_name: Mapped axis of the global batch.
    """

    share: Array
    train: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, y: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        if not self.train:
            return y * self.share.astype(y.dtype)
        if not self.has_rng(EXAMPLES_RNG):
            raise ModelError(
                f"stochastic depth draws numbers in training; give apply rngs={{{EXAMPLES_RNG!r}: key}}"
            )
        keys = example_keys(self.make_rng(EXAMPLES_RNG), y.shape[0], self.axis_name)
        alive = jax.vmap(jax.random.bernoulli, in_axes=(0, None))(keys, self.share)
        return jnp.where(alive[:, None, None, None], y, 0)


def stochastic_depth(
    y: Float[Array, "n h w c"], *, survival: float, depth: Array, train: bool, axis_name: str | None
) -> Float[Array, "n h w c"]:
    """Returns y, or 0 with a probability that rises linearly with depth (arXiv 1603.09382, eq. 4 and 5), example by example.

    Args:
        y: F(x) of the l-th of L blocks.
        survival: Probability p_L of the last block; p_l = 1 - l / L · (1 - p_L).
        depth: l / L.
        train: Otherwise y times p_l.
        axis_name: Mapped axis of the global batch.
    """
    return Survival(1 - depth * (1 - survival), train, axis_name, name="survival")(y)
