"""Greedy non-maximum suppression as a fixpoint by blocks, the best boxes, and box voting.

The greedy algorithm keeps a box if no likelier box that it keeps overlaps it. The kept boxes of a block are
the only fixpoint of that rule, and iterating it settles the boxes in the order of their scores: in as many
rounds as chains of suppression are long, not as there are boxes. No array of all pairs is made.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from resnet_jax.detection.boxes import iou

_State = tuple[Array, Array, Array, Array, Array]

NMS_BLOCK = 512
"""Boxes that are settled at once."""


def best(
    scores: Float[Array, " n"], valid: Bool[Array, " n"], count: int
) -> tuple[Int[Array, " count"], Bool[Array, " count"]]:
    """Returns the numbers of the highest scores, falling, ties in order, and which of them are valid.

    Scores that are not valid, or NaN, come last.
    """
    usable = valid & ~jnp.isnan(scores)
    _, order = lax.top_k(jnp.where(usable, scores, -jnp.inf), count)
    return order, usable[order]


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    threshold: float,
    *,
    count: int,
    classes: Int[Array, " n"] | None = None,
) -> Bool[Array, " n"]:
    """Returns which boxes the greedy algorithm keeps, the likeliest `count` of them.

    Args:
        boxes: Edges.
        scores: Scores; among equal ones the first box counts as likelier. NaN is never kept.
        valid: Boxes that take part.
        threshold: A box whose IoU with a kept one is larger is dropped.
        count: Boxes that are kept at most.
        classes: Only boxes of the same class drop each other. None is one class.
    """
    total = len(scores)
    block = min(NMS_BLOCK, total)
    blocks = -(-total // block)
    order, usable = best(jnp.where(jnp.isinf(scores), jnp.sign(scores) * 3e38, scores), valid, total)
    missing = blocks * block - total
    sorted_boxes = jnp.pad(boxes[order], ((0, missing), (0, 0)))
    labels = jnp.zeros(total, jnp.int32) if classes is None else classes.astype(jnp.int32)
    sorted_labels = jnp.pad(labels[order], (0, missing))
    alive = jnp.pad(usable, (0, missing))
    room = min(count, total)
    if blocks == 1:
        chosen = _settle_block(sorted_boxes, sorted_labels, alive, threshold)
        chosen &= jnp.cumsum(chosen, dtype=jnp.int32) <= room
        return jnp.zeros(total, bool).at[order].set(chosen)

    def more(state: _State) -> Array:
        number, found, _, _, _ = state
        return (number < blocks) & (found < room) & alive[jnp.minimum(number, blocks - 1) * block]

    def settle(state: _State) -> _State:
        number, found, kept_boxes, kept_labels, keep = state
        start = number * block
        these = lax.dynamic_slice_in_dim(sorted_boxes, start, block)
        of_these = lax.dynamic_slice_in_dim(sorted_labels, start, block)
        candidates = lax.dynamic_slice_in_dim(alive, start, block)
        before = (iou(these, kept_boxes) > threshold) & (of_these[:, None] == kept_labels)
        candidates &= ~jnp.any(before, 1)
        chosen = _settle_block(these, of_these, candidates, threshold)
        place = found + jnp.cumsum(chosen, dtype=jnp.int32) - 1
        chosen &= place < room
        target = jnp.where(chosen, place, room)
        kept_boxes = kept_boxes.at[target].set(these, mode="drop")
        kept_labels = kept_labels.at[target].set(of_these, mode="drop")
        keep = lax.dynamic_update_slice_in_dim(keep, chosen, start, 0)
        return number + 1, found + chosen.sum(dtype=jnp.int32), kept_boxes, kept_labels, keep

    zero = jnp.zeros((), jnp.int32)
    state = (
        zero,
        zero,
        jnp.zeros((room, 4), boxes.dtype),
        jnp.full(room, -1, jnp.int32),
        jnp.zeros(blocks * block, bool),
    )
    keep = lax.while_loop(more, settle, state)[-1]
    return jnp.zeros(total, bool).at[order].set(keep[:total])


def _settle_block(
    boxes: Float[Array, "b 4"], labels: Int[Array, " b"], candidates: Bool[Array, " b"], threshold: float
) -> Bool[Array, " b"]:
    """Returns which of a block's candidates, sorted by score, are kept."""
    place = jnp.arange(len(boxes))
    drops = (iou(boxes, boxes) > threshold) & (labels[:, None] == labels) & (place[:, None] < place)

    def unsettled(state: tuple[Array, Array]) -> Array:
        return jnp.any(state[0] != state[1])

    def improve(state: tuple[Array, Array]) -> tuple[Array, Array]:
        keep, _ = state
        return candidates & ~jnp.any(drops & keep[:, None], 0), keep

    return lax.while_loop(unsettled, improve, improve((candidates, candidates)))[0]


def vote(
    kept: Float[Array, "k 4"],
    kept_classes: Int[Array, " k"],
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    classes: Int[Array, " n"],
    threshold: float,
) -> Float[Array, "k 4"]:
    """Returns each kept box as the mean of the boxes of its class around it, weighted by score (box voting).

    Around it are those whose IoU with it is the threshold or more (appendix B; Detectron's `box_voting`).
    """
    near = (iou(kept, boxes) >= threshold) & (kept_classes[:, None] == classes) & valid
    weights = jnp.where(near, scores, 0)
    total = weights.sum(1, keepdims=True)
    return jnp.where(total > 0, weights @ boxes / jnp.where(total > 0, total, 1), kept)
