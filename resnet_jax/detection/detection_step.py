"""The training step of a detector on one device's part of the batch: proposals and regions in one loss.

It has the form of `resnet_jax.training.step`: keys are folded from (seed, step, index in the global
batch), and losses have constant normalizers, so that the number of devices changes nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, PyTree

from resnet_jax.detection.anchors import anchor_grid
from resnet_jax.detection.detection_losses import head_loss, rpn_loss
from resnet_jax.detection.detector import Detector, call
from resnet_jax.detection.objects import Objects
from resnet_jax.detection.padding import map_sizes, within
from resnet_jax.detection.profiles import Profile
from resnet_jax.detection.proposals import ProposalLimits, propose
from resnet_jax.detection.regions import head_outputs
from resnet_jax.detection.targets import anchor_targets, roi_targets
from resnet_jax.training.accumulation import mean_over_parts
from resnet_jax.training.optimizer import hold_frozen, rate_factor
from resnet_jax.training.schedules import Schedule
from resnet_jax.training.state import AUGMENTATION_STREAM, TrainState
from resnet_jax.training.step import Batch, TrainStep, keys_of_examples

TRAINED_PARTS = ("joint", "rpn", "fast_rcnn")
"""What is trained: both networks at once, or one of them (4-step alternation, arXiv 1506.01497, §3.2)."""

LOSSES = ("rpn_object", "rpn_box", "head_class", "head_box")
"""The terms of the loss."""


def normalize_images(images: Array, mean: Array, sizes: Array) -> Array:
    """Returns images less the mean, and zeros beyond their true sizes."""
    inside = within(sizes, images.shape[1:3])[..., None]
    return jnp.where(inside, images.astype(mean.dtype) - mean, 0)


def grid_of(profile: Profile, x: Array, image: tuple[int, ...]) -> Array:
    """Returns the anchors of a map [n, h, w, c] of images of this height and width: [k, 4]."""
    stride = image[0] // x.shape[1]
    rows, columns = x.shape[1:3]
    grid = anchor_grid(rows, columns, stride=stride, cell=profile.cell, offset=profile.anchor_offset)
    return jnp.asarray(grid)


def present_anchors(profile: Profile, x: Array, batch: Batch) -> Array:
    """Returns which anchors of a map [n, h, w, c] are at places of each image, not of its padding: [n, k]."""
    shape = x.shape[1:3]
    places = within(map_sizes(batch["size"], batch["image"].shape[1:3], shape), shape)
    return jnp.repeat(places.reshape(len(x), -1), len(profile.cell), 1)


def make_detection_step(
    model: Detector,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    schedule: Schedule,
    seed: int | Array,
    part: str = "joint",
    axis_name: str | None = None,
    accumulation: int = 1,
    frozen: Sequence[str] = (),
) -> TrainStep:
    """Returns `train_step(state, batch) -> (state, metrics)`, pure, on one device's part of the batch.

    The gradient is that of the mean loss of an image over the global batch. Metrics are those of the global
    batch before the update: `loss` and its terms `rpn_object`, `rpn_box`, `head_class` and `head_box`, the
    shares `rpn_correct` and `head_correct` of anchors and regions that are judged right, `gradient_norm` and
    `learning_rate`.

    Args:
        model: The detector.
        optimizer: Makes updates of gradients; it is given the loss as `value`.
        schedule: Learning rate by step; only to report it.
        seed: Seed of the samples of anchors and regions.
        part: One of TRAINED_PARTS. "fast_rcnn" takes its regions from the batch's `proposals`.
        axis_name: Mapped axis of the global batch; None gives a step for plain `jax.jit`.
        accumulation: Micro-batches that a batch is computed in.
        frozen: Patterns of paths of parameters whose gradient is zero and is not computed.
    """
    loss_of = make_loss(model, part)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        def differentiate(part_of_batch: Batch, carried: PyTree, number: Array) -> tuple[PyTree, PyTree]:
            del number
            keys = keys_of_examples(seed, AUGMENTATION_STREAM, state.step, part_of_batch["index"])

            def loss_function(params: PyTree) -> tuple[Array, dict[str, Array]]:
                variables = {"params": hold_frozen(params, frozen), "batch_stats": state.batch_stats}
                terms = loss_of(variables, state.image_mean, keys, part_of_batch)
                return jnp.asarray(sum(terms[name] for name in terms if name in LOSSES)), terms

            (loss, terms), gradients = jax.value_and_grad(loss_function, has_aux=True)(state.params)
            return (gradients, {"loss": loss, **terms}), carried

        means, _ = mean_over_parts(differentiate, batch, {}, parts=accumulation)
        gradients, metrics = lax.pmean(means, axis_name) if axis_name else means
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, value=metrics["loss"])
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        metrics["learning_rate"] = schedule(state.step) * rate_factor(opt_state)
        params = optax.apply_updates(state.params, updates)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return train_step


def make_loss(model: Detector, part: str) -> Callable[[PyTree, Array, Array, Batch], dict[str, Array]]:
    """Returns `loss(variables, image_mean, keys, batch) -> terms`: means over the images of a batch."""
    profile = model.profile

    def loss_of(variables: PyTree, mean: Array, keys: Array, batch: Batch) -> dict[str, Array]:
        sizes = batch["size"]
        objects = Objects(*(batch[name] for name in ("box", "label", "valid", "ignored")))
        of_anchors, of_regions = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        images = normalize_images(batch["image"], mean, sizes)
        x = call(model.trunk, variables, images, None if profile.whole_images else sizes)
        terms: dict[str, Array] = {}
        if part == "fast_rcnn":
            proposals, valid = batch["proposals"], batch["proposals_valid"]
        else:
            anchors = grid_of(profile, x, batch["image"].shape[1:3])
            logits, deltas = call(model.rpn, variables, x)
            terms |= jax.vmap(partial(_anchor_terms, anchors=anchors, profile=profile))(
                of_anchors, logits, deltas, objects, sizes
            )
            limits = ProposalLimits(profile.train_before, profile.train_proposals)
            find = partial(propose, anchors=anchors, profile=profile, limits=limits)
            present = present_anchors(profile, x, batch)
            proposals, valid = jax.vmap(find)(logits, deltas, sizes, batch["scale"], present=present)
        if part != "rpn":
            sample = jax.vmap(partial(roi_targets, profile=profile, classes=model.classes))
            boxes, used, labels, targets = sample(of_regions, proposals, valid, objects)
            scores, deltas = head_outputs(model, variables, x, boxes, used, batch)
            losses = jax.vmap(partial(head_loss, profile=profile))
            terms |= losses(scores, deltas, labels, used, targets)
            right = (jnp.argmax(scores, -1) == labels) & used
            terms["head_correct"] = right.sum(-1) / jnp.maximum(used.sum(-1), 1)
        return jax.tree.map(jnp.mean, terms)

    return loss_of


def _anchor_terms(
    key: Array,
    logits: Array,
    deltas: Array,
    objects: Objects,
    size: Array,
    *,
    anchors: Array,
    profile: Profile,
) -> dict[str, Array]:
    """Returns the terms of the proposal network for an image."""
    positive, negative, targets = anchor_targets(key, anchors, objects, size, profile)
    used = positive | negative
    right = used & ((logits > 0) == positive)
    share = {"rpn_correct": right.sum() / jnp.maximum(used.sum(), 1)}
    return rpn_loss(logits, deltas, positive, negative, targets, profile) | share
