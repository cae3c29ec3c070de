"""Boxes: left, top, right and bottom edge in continuous pixels, [..., 4]; a width is right - left.

Everything is finite for finite boxes, degenerate ones too, and so are the gradients.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

Boxes = Float[Array, "*n 4"]

LARGEST_CHANGE = math.log(1000 / 16)
"""Largest change of the logarithm of a side (py-faster-rcnn's, in later implementations)."""

SMALLEST_SIDE = 1e-3
"""Side in pixels that narrower boxes are taken to have where a logarithm or a quotient needs one."""


def area(boxes: Boxes) -> Float[Array, "*n"]:
    """Returns areas; 0 for a box whose edges are out of order."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def intersection(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Returns the areas that boxes share, with the axes of both broadcast."""
    # Edge by edge, so that the long axes are the innermost ones and fill vector registers.
    width = jnp.minimum(a[..., 2], b[..., 2]) - jnp.maximum(a[..., 0], b[..., 0])
    height = jnp.minimum(a[..., 3], b[..., 3]) - jnp.maximum(a[..., 1], b[..., 1])
    return jnp.maximum(width, 0) * jnp.maximum(height, 0)


def iou(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Returns the intersection over union of every pair; 0 where both are empty."""
    shared = intersection(a[:, None], b[None])
    union = area(a)[:, None] + area(b)[None] - shared
    return shared / jnp.where(union > 0, union, 1)


def covered(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Returns the share of each box of `a` that lies in each box of `b`; 0 for an empty one."""
    own = area(a)[:, None]
    return intersection(a[:, None], b[None]) / jnp.where(own > 0, own, 1)


def _center_and_sides(boxes: Boxes) -> tuple[Array, Array]:
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], SMALLEST_SIDE)
    return boxes[..., :2] + sides / 2, sides


def encode_boxes(target: Boxes, anchor: Boxes, weights: tuple[float, ...]) -> Boxes:
    """Returns the deltas that make an anchor the target (arXiv 1311.2524, appendix C), times the weights."""
    center, sides = _center_and_sides(target)
    of_anchor, sides_of_anchor = _center_and_sides(anchor)
    moved = (center - of_anchor) / sides_of_anchor
    return jnp.concatenate([moved, jnp.log(sides / sides_of_anchor)], -1) * jnp.asarray(weights, target.dtype)


def decode_boxes(deltas: Boxes, anchor: Boxes, weights: tuple[float, ...]) -> Boxes:
    """Returns the boxes that deltas make of anchors: the inverse of `encode_boxes`.

    A side grows by 1000/16 at most, so that large deltas give finite boxes.
    """
    deltas = deltas / jnp.asarray(weights, deltas.dtype)
    of_anchor, sides_of_anchor = _center_and_sides(anchor)
    center = of_anchor + deltas[..., :2] * sides_of_anchor
    sides = jnp.exp(jnp.minimum(deltas[..., 2:], LARGEST_CHANGE)) * sides_of_anchor
    return jnp.concatenate([center - sides / 2, center + sides / 2], -1)


def clip(boxes: Boxes, size: Float[Array, "2"]) -> Boxes:
    """Returns boxes cut to an image of this height and width."""
    limits = jnp.asarray(size)[jnp.array([1, 0, 1, 0])].astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits)


def mirror(boxes: Boxes, width: float | Array) -> Boxes:
    """Returns the boxes of an image of this width that is mirrored left to right."""
    left, top, right, bottom = (boxes[..., side] for side in range(4))
    return jnp.stack([width - right, top, width - left, bottom], -1)
