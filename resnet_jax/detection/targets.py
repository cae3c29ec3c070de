"""Which anchors and regions are trained, and as what (arXiv 1506.01497, §3.1.2; 1504.08083, §2.3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from resnet_jax.detection.boxes import covered, encode_boxes, iou
from resnet_jax.detection.nms import best
from resnet_jax.detection.objects import Objects
from resnet_jax.detection.profiles import Profile

ONE = (1.0, 1.0, 1.0, 1.0)
"""Factors of the deltas of proposals."""

IN_CROWD = 0.7
"""Share of a box in an ignored object from which on the box is not trained (py-faster-rcnn's, of crowds)."""


def sample(
    key: PRNGKeyArray, positive: Bool[Array, " n"], negative: Bool[Array, " n"], count: int, share: float
) -> tuple[Bool[Array, " n"], Bool[Array, " n"]]:
    """Returns random subsets: at most `share` of `count` positives, and negatives that fill it up.

    Args:
        key: Key of the choice.
        positive: Candidates.
        negative: Candidates; none of them is positive.
        count: Size of the sample; it is smaller where there are too few negatives.
        share: Share of positives at most.
    """
    of_positive, of_negative = jax.random.split(key)
    most = min(int(count * share), len(positive))
    chosen = _choose(of_positive, positive, jnp.asarray(most), most)
    left = count - chosen.sum()
    return chosen, _choose(of_negative, negative, left, min(count, len(negative)))


def _choose(key: PRNGKeyArray, candidates: Bool[Array, " n"], count: Array, most: int) -> Bool[Array, " n"]:
    """Returns `count` random candidates, or all if there are fewer; `most` is the largest count."""
    if not most:
        return jnp.zeros_like(candidates)
    order, valid = best(jax.random.uniform(key, candidates.shape), candidates, most)
    return jnp.zeros_like(candidates).at[order].set(valid & (jnp.arange(most) < count))


def anchor_targets(
    key: PRNGKeyArray,
    anchors: Float[Array, "k 4"],
    objects: Objects,
    size: Float[Array, "2"],
    profile: Profile,
) -> tuple[Bool[Array, " k"], Bool[Array, " k"], Float[Array, "k 4"]]:
    """Returns the sampled positive and negative anchors of an image, and the deltas of all.

    An anchor is positive if its IoU with an object is `anchor_positive` or more, or the largest that an
    object has with any anchor and above 0 (ties all count); it learns the object that it overlaps most. It is
    negative if its IoU with all objects is below `anchor_negative`.

    Args:
        key: Key of the sample.
        anchors: The grid.
        objects: Objects of the image.
        size: True height and width of the image: anchors beyond it are not trained, nor those over its border
            where the profile says so.
        profile: Constants.
    """
    anchors = jnp.asarray(anchors, objects.box.dtype)
    learned = objects.valid & ~objects.ignored
    usable = ~_in_ignored(anchors, objects)
    if profile.only_inside:
        usable &= _inside(anchors, size)
    else:
        usable &= _inside((anchors[:, :2] + anchors[:, 2:])[:, [0, 1, 0, 1]] / 2, size)
    overlaps = jnp.where(learned, iou(anchors, objects.box), 0)
    overlaps = jnp.where(usable[:, None], overlaps, 0)
    largest = overlaps.max(1)
    of_object = overlaps.max(0)
    is_best = jnp.any((overlaps == of_object) & (of_object > 0) & learned, 1)
    positive = usable & ((largest >= profile.anchor_positive) | is_best)
    negative = usable & (largest < profile.anchor_negative) & ~positive
    positive, negative = sample(key, positive, negative, profile.anchor_sample, 0.5)
    targets = encode_boxes(objects.box[overlaps.argmax(1)], anchors, ONE)
    return positive, negative, jnp.where(positive[:, None], targets, 0)


def roi_targets(
    key: PRNGKeyArray,
    proposals: Float[Array, "p 4"],
    valid: Bool[Array, " p"],
    objects: Objects,
    profile: Profile,
    classes: int,
) -> tuple[Float[Array, "r 4"], Bool[Array, " r"], Int[Array, " r"], Float[Array, "r 4"]]:
    """Returns the regions that the head is trained on, which there are, their classes and their deltas.

    The objects join the proposals. A region is an object if its IoU with one is `region_positive` or more,
    else background: class `classes`.

    Args:
        key: Key of the sample.
        proposals: Proposals of the image.
        valid: Which proposals there are.
        objects: Objects of the image.
        profile: Constants.
        classes: Number of classes, without the background.
    """
    learned = objects.valid & ~objects.ignored
    boxes = jnp.concatenate([proposals.astype(objects.box.dtype), objects.box])
    usable = jnp.concatenate([valid, learned]) & ~_in_ignored(boxes, objects)
    overlaps = jnp.where(learned, iou(boxes, objects.box), 0)
    largest, which = overlaps.max(1), overlaps.argmax(1)
    positive = usable & (largest >= profile.region_positive)
    negative = usable & (largest < profile.region_positive)
    positive, negative = sample(key, positive, negative, profile.regions, profile.region_share)
    # Positive ones first, then negative ones; what is left over is not valid.
    order, chosen = best(2.0 * positive + negative, positive | negative, min(profile.regions, len(boxes)))
    missing = profile.regions - len(order)
    of_chosen = positive[order]
    regions = jnp.where(chosen[:, None], boxes[order], 0)
    labels = jnp.where(of_chosen, objects.label[which[order]], classes)
    targets = encode_boxes(objects.box[which[order]], regions, profile.head_weights)
    targets = jnp.where(of_chosen[:, None], targets, 0)
    return (
        jnp.pad(regions, ((0, missing), (0, 0))),
        jnp.pad(chosen, (0, missing)),
        jnp.pad(labels, (0, missing), constant_values=classes),
        jnp.pad(targets, ((0, missing), (0, 0))),
    )


def _inside(boxes: Float[Array, "k 4"], size: Float[Array, "2"]) -> Bool[Array, " k"]:
    """Returns which boxes are inside of an image of this height and width."""
    return (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] <= size[1]) & (boxes[:, 3] <= size[0])


def _in_ignored(boxes: Float[Array, "k 4"], objects: Objects) -> Bool[Array, " k"]:
    """Returns which boxes lie, for the larger part, in a crowd or a difficult object."""
    ignored = objects.valid & objects.ignored
    return (jnp.where(ignored, covered(boxes, objects.box), 0) > IN_CROWD).any(1)
