"""The shortcut options A, B and C of §3.3: the path around a block."""

from typing import Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.layers import LayerFactory


class Shortcut(Protocol):
    """The path around a block: from its input to what is added to F(x) (eq. 1 and 2)."""

    def __call__(
        self, x: Array, *, channels: int, stride: int, conv: LayerFactory, norm: LayerFactory
    ) -> Array | float: ...


def identity_or_padding(
    x: Float[Array, "n h w c"], *, channels: int, stride: int, **_: object
) -> Float[Array, "n h2 w2 k"]:
    """Option A: identity; where dimensions rise, every stride-th pixel with zeros for the new channels."""
    return jnp.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(0, channels - x.shape[-1])])


def identity_or_centered_padding(
    x: Float[Array, "n h w c"], *, channels: int, stride: int, **_: object
) -> Float[Array, "n h2 w2 k"]:
    """Option A with half of the zeros before and half behind the channels, as in akamaster's repository."""
    new = channels - x.shape[-1]
    return jnp.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(new // 2, new - new // 2)])


def projection(
    x: Float[Array, "n h w c"], *, channels: int, stride: int, conv: LayerFactory, norm: LayerFactory
) -> Float[Array, "n h2 w2 k"]:
    """Option C: a 1×1 convolution and its normalization, everywhere."""
    x = conv(channels, (1, 1), stride, name="projection")(x)
    return norm(name="projection_norm")(x)


def identity_or_projection(
    x: Float[Array, "n h w c"], *, channels: int, stride: int, conv: LayerFactory, norm: LayerFactory
) -> Float[Array, "n h2 w2 k"]:
    """Option B: a projection where dimensions rise, identity elsewhere."""
    if x.shape[-1] == channels and stride == 1:
        return x
    return projection(x, channels=channels, stride=stride, conv=conv, norm=norm)


def no_shortcut(x: Array, **_: object) -> float:  # noqa: ARG001
    """Nothing is added: the plain nets of the paper."""
    return 0.0


SHORTCUTS: dict[str, Shortcut] = {
    "A": identity_or_padding,
    "A_centered": identity_or_centered_padding,
    "B": identity_or_projection,
    "C": projection,
    "none": no_shortcut,
}
"""The shortcut options of §3.3 by their letter, and "none" for the plain nets."""
