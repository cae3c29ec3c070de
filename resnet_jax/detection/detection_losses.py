"""The four terms of the loss: sums over constant numbers, so that a batch is the mean of its parts."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from resnet_jax.detection.profiles import Profile


def smooth_l1(x: Float[Array, "..."], beta: float) -> Float[Array, "..."]:
    """Returns x²/2β below β and |x| - β/2 above (arXiv 1504.08083, eq. 3); |x| for β = 0."""
    size = jnp.abs(x)
    if not beta:
        return size
    return jnp.where(size < beta, 0.5 * x * x / beta, size - 0.5 * beta)


def rpn_loss(
    logits: Float[Array, " k"],
    deltas: Float[Array, "k 4"],
    positive: Bool[Array, " k"],
    negative: Bool[Array, " k"],
    targets: Float[Array, "k 4"],
    profile: Profile,
) -> dict[str, Array]:
    """Returns `rpn_object` and `rpn_box` of an image, over `anchor_sample` anchors."""
    used = positive | negative
    wrong = optax.sigmoid_binary_cross_entropy(jnp.where(used, logits, 0), positive.astype(logits.dtype))
    off = smooth_l1(jnp.where(positive[:, None], deltas - targets, 0), profile.rpn_beta)
    return {
        "rpn_object": jnp.where(used, wrong, 0).sum() / profile.anchor_sample,
        "rpn_box": off.sum() / profile.anchor_sample,
    }


def head_loss(
    scores: Float[Array, "r classes+1"],
    deltas: Float[Array, "r classes 4"],
    label: Int[Array, " r"],
    valid: Bool[Array, " r"],
    targets: Float[Array, "r 4"],
    profile: Profile,
) -> dict[str, Array]:
    """Returns `head_class` and `head_box` of an image, over `regions` regions.

    The background is the last class; the box of an object's class alone is trained.
    """
    classes = deltas.shape[1]
    wrong = optax.softmax_cross_entropy_with_integer_labels(jnp.where(valid[:, None], scores, 0), label)
    of_class = jnp.take_along_axis(deltas, jnp.minimum(label, classes - 1)[:, None, None], 1)[:, 0]
    is_object = (valid & (label < classes))[:, None]
    off = smooth_l1(jnp.where(is_object, of_class - targets, 0), profile.head_beta)
    return {
        "head_class": jnp.where(valid, wrong, 0).sum() / profile.regions,
        "head_box": off.sum() / profile.regions,
    }
