"""From the region proposal network to regions: the best anchors, moved, without duplicates."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from resnet_jax.detection.boxes import clip, decode_boxes
from resnet_jax.detection.nms import best, nms
from resnet_jax.detection.profiles import Profile


class ProposalLimits(NamedTuple):
    """How many proposals are made.

    Attributes:
        before: Anchors that are looked at, the most likely ones.
        most: Proposals of an image at most.
    """

    before: int
    most: int


def propose(
    logits: Float[Array, " k"],
    deltas: Float[Array, "k 4"],
    size: Float[Array, "2"],
    scale: Float[Array, "2"],
    *,
    anchors: Float[Array, "k 4"],
    profile: Profile,
    limits: ProposalLimits,
    present: Bool[Array, " k"] | None = None,
) -> tuple[Float[Array, "p 4"], Bool[Array, " p"]]:
    """Returns the proposals of an image, the most likely first, and which of them there are.

    They are constants: no gradient flows through them (approximate joint training).

    Args:
        logits: A logit for every anchor.
        deltas: Four deltas for every anchor.
        size: True height and width of the image, in pixels of the network.
        scale: Network pixels per pixel of the original, vertically and horizontally.
        anchors: The grid.
        profile: Smallest side, in pixels of the original, and overlap of duplicates.
        limits: Numbers of anchors and proposals.
        present: Anchors of the image itself, and not of its padding. None is all.
    """
    logits, deltas = lax.stop_gradient((logits, deltas))
    before, count = min(limits.before, len(logits)), limits.most
    anchors = anchors.astype(deltas.dtype)
    usable = jnp.isfinite(logits) if present is None else present & jnp.isfinite(logits)
    chosen, valid = best(logits, usable, before)
    boxes = clip(decode_boxes(deltas[chosen], anchors[chosen], (1.0, 1.0, 1.0, 1.0)), size)
    sides = (boxes[:, 2:] - boxes[:, :2]) / scale[::-1]
    valid &= jnp.all((sides >= profile.smallest_proposal) & (sides > 0), -1)
    scores = logits[chosen]
    keep = nms(boxes, scores, valid, profile.proposal_overlap, count=count)
    order, valid = best(scores, keep, min(count, before))
    boxes = jnp.where(valid[:, None], boxes[order], 0)
    missing = count - len(boxes)
    return jnp.pad(boxes, ((0, missing), (0, 0))), jnp.pad(valid, (0, missing))
