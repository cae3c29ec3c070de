"""From images to detections, and to proposals: programs of fixed shape, mapped over the images of a batch."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from resnet_jax.detection.boxes import clip, decode_boxes
from resnet_jax.detection.detection_step import grid_of, normalize_images, present_anchors
from resnet_jax.detection.detector import Detector, call
from resnet_jax.detection.nms import best, nms, vote
from resnet_jax.detection.objects import Detections
from resnet_jax.detection.profiles import Profile
from resnet_jax.detection.proposals import ProposalLimits, propose
from resnet_jax.detection.regions import head_outputs
from resnet_jax.detection.several_scales import maps_at_scales, outputs_at_scales

ImageBatch = dict[str, Array]
"""`image` uint8[n, H, W, 3], `size` int32[n, 2] and `scale` float32[n, 2] of them; for several scales also
the same of every scale of the profile, as `image_SIDE`, `size_SIDE` and `scale_SIDE`."""

JUDGINGS = ("single", "refine", "multi-scale", "refine+multi-scale")
"""How regions are judged: once, or again from the boxes of the first time (box refinement, appendix B); from
the map of one scale of the image, or from those of two (multi-scale testing)."""

CANDIDATES = 8192
"""Boxes of an image, over all classes, that duplicates are looked for among: the most likely ones."""


def sees_scales(protocol: str) -> bool:
    """Returns whether a protocol, one of JUDGINGS, needs the images of a batch at several scales."""
    return "multi-scale" in protocol


class Judged(NamedTuple):
    """What the head says of the regions of a batch.

    Attributes:
        score: Probability of every class, without the background's: [n, r, classes].
        box: The box of every class, clipped to the image: [n, r, classes, 4].
        valid: Which regions there are: [n, r].
    """

    score: Float[Array, "n r c"]
    box: Float[Array, "n r c 4"]
    valid: Bool[Array, "n r"]


def make_propose(
    model: Detector, *, count: int | None = None
) -> Callable[[PyTree, Array, ImageBatch], tuple[Array, Array]]:
    """Returns `propose(variables, image_mean, batch) -> (boxes [n, p, 4], valid [n, p])`.

    Args:
        model: The detector.
        count: Proposals of an image. Defaults to the profile's at test.
    """

    def proposals(variables: PyTree, mean: Array, batch: ImageBatch) -> tuple[Array, Array]:
        return _propose(model, variables, _trunk(model, variables, mean, batch), batch, count)

    return proposals


def make_detect(
    model: Detector, *, protocol: str = "single"
) -> Callable[[PyTree, Array, ImageBatch], Detections]:
    """Returns `detect(variables, image_mean, batch) -> Detections`; boxes are in network pixels.

    Args:
        model: The detector.
        protocol: One of JUDGINGS.
    """
    refined = "refine" in protocol

    def detect(variables: PyTree, mean: Array, batch: ImageBatch) -> Detections:
        x = _trunk(model, variables, mean, batch)
        boxes, valid = _propose(model, variables, x, batch, None)
        if sees_scales(protocol):
            scales = maps_at_scales(batch, model.profile, partial(_trunk, model, variables, mean))
            outputs = partial(outputs_at_scales, model, variables, scales, sizes=batch["size"])
        else:
            outputs = partial(head_outputs, model, variables, x, batch=batch)
        judge = partial(_judge, outputs, model.profile, batch["size"])
        judged = judge(boxes, valid)
        if refined:
            again = judge(_likeliest(judged), valid)
            judged = jax.tree.map(lambda old, new: jnp.concatenate([old, new], 1), judged, again)
        return jax.vmap(partial(_select, profile=model.profile, voted=refined))(judged)

    return detect


def _trunk(model: Detector, variables: PyTree, mean: Array, batch: ImageBatch) -> Array:
    sizes = batch["size"]
    images = normalize_images(batch["image"], mean, sizes)
    whole = model.profile.whole_images
    return call(model.trunk, variables, images, None if whole else sizes)


def _propose(
    model: Detector, variables: PyTree, x: Array, batch: ImageBatch, count: int | None
) -> tuple[Array, Array]:
    profile = model.profile
    logits, deltas = call(model.rpn, variables, x)
    limits = ProposalLimits(profile.test_before, count or profile.test_proposals)
    anchors = grid_of(profile, x, batch["image"].shape[1:3])
    find = partial(propose, anchors=anchors, profile=profile, limits=limits)
    present = present_anchors(profile, x, batch)
    return jax.vmap(find)(logits, deltas, batch["size"], batch["scale"], present=present)


def _judge(
    outputs: Callable[[Array, Array], tuple[Array, Array]],
    profile: Profile,
    sizes: Array,
    boxes: Array,
    valid: Array,
) -> Judged:
    """Returns scores and boxes that the head gives regions."""
    scores, deltas = outputs(boxes, valid)
    moved = decode_boxes(deltas, boxes[:, :, None], profile.head_weights)
    return Judged(jax.nn.softmax(scores)[..., :-1], jax.vmap(clip)(moved, sizes), valid)


def _likeliest(judged: Judged) -> Float[Array, "n r 4"]:
    """Returns the box of the likeliest class of every region."""
    likeliest = jnp.argmax(judged.score, -1)[..., None, None]
    return jnp.take_along_axis(judged.box, likeliest, 2)[:, :, 0]


def _select(judged: Judged, *, profile: Profile, voted: bool) -> Detections:
    """Returns the detections of an image: likely boxes without duplicates of the same class."""
    regions, classes = judged.score.shape
    scores, boxes = judged.score.reshape(-1), judged.box.reshape(-1, 4)
    labels = jnp.tile(jnp.arange(classes), regions)
    sides = boxes[:, 2:] - boxes[:, :2]
    valid = jnp.repeat(judged.valid, classes) & (scores > profile.score_threshold) & jnp.all(sides > 0, -1)
    order, valid = best(scores, valid, min(CANDIDATES, len(scores)))
    scores, boxes, labels = scores[order], boxes[order], labels[order]
    keep = nms(boxes, scores, valid, profile.detection_overlap, count=profile.detections, classes=labels)
    chosen, kept = best(scores, keep, min(profile.detections, len(scores)))
    found = boxes[chosen]
    if voted:
        found = vote(found, labels[chosen], boxes, scores, valid, labels, 0.5)

    def padded(array: Array) -> Array:
        missing = [(0, profile.detections - len(kept))] + [(0, 0)] * (array.ndim - 1)
        cleared = jnp.where(kept.reshape(-1, *[1] * (array.ndim - 1)), array, jnp.zeros_like(array))
        return jnp.pad(cleared, missing)

    return Detections(padded(found), padded(scores[chosen]), padded(labels[chosen]), padded(kept))


def example_batch(images: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Returns shapes and dtypes of a batch of inference: images of this height and width."""
    struct = jax.ShapeDtypeStruct
    return {
        "image": struct((images, *shape, 3), jnp.uint8),
        "size": struct((images, 2), jnp.int32),
        "scale": struct((images, 2), jnp.float32),
    }
