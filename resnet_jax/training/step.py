"""The training step and the evaluation step of one device.

They are written against the mapped axis of the global batch; without an axis they are steps for plain
`jax.jit`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from resnet_jax.data.augment import Augment
from resnet_jax.data.batches import HostBatch
from resnet_jax.models.rng_streams import EXAMPLES_RNG
from resnet_jax.models.sliced_apply import apply_in_slices
from resnet_jax.parallel import Mapping
from resnet_jax.training.accumulation import mean_over_parts
from resnet_jax.training.optimizer import hold_frozen, rate_factor
from resnet_jax.training.schedules import Schedule
from resnet_jax.training.state import AUGMENTATION_STREAM, DROPOUT_STREAM, EXAMPLES_STREAM, TrainState

Batch = dict[str, Array]
"""A device's part: image uint8[n, H, W, 3], label and index (in the global batch) int32[n], mask bool[n]."""


Loss = Callable[[Array, Array], Array]
"""(logits [n, classes], labels int32[n]) → loss of each example [n]."""

Measures = Callable[[Array, Array], dict[str, Array]]
"""(logits [n, classes], labels [n]) → metrics of a training step besides the loss, as means."""

Sums = dict[str, Array]
SumsOfBatch = Callable[[Array, Array, Array], Sums]
"""(logits [n, classes], labels [n], mask bool[n]) → `examples`, their number, and sums over them."""

TrainStep: TypeAlias = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
EvaluationStep: TypeAlias = Callable[[TrainState, Batch], Sums]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformationExtraArgs,
    augment: Augment,
    *,
    schedule: Schedule,
    seed: int | Array,
    axis_name: str | None = None,
    loss: Loss | None = None,
    measures: Measures | None = None,
    accumulation: int = 1,
    frozen: Sequence[str] = (),
) -> TrainStep:
    """Returns `train_step(state, batch) -> (state, metrics)`, pure, on one device's part of the batch.

    The gradient is that of the mean loss over the global batch; weight decay is the optimizer's. Metrics are
    those of the global batch before the update: means of the `loss` and of the measures, the `gradient_norm`
    without weight decay, and the `learning_rate` of the update.

    Args:
        model: The network. With an axis it has the same `axis_name`, so that groups of batch normalization
            may span devices.
        optimizer: Makes updates of gradients. It is given the training error of the step (the loss, if there
            is no `top1`) as `value`.
        augment: Augments and normalizes images. Its keys are folded from the seed, the step and the example's
            index in the global batch.
        schedule: Learning rate by step; only to report it.
        seed: Seed of augmentation, dropout and stochastic depth (see `resnet_jax.models.rng_streams`). It may
            be traced, as where the steps of several seeds are one program.
        axis_name: Mapped axis of the global batch. None gives a step for plain `jax.jit`, whose batch is
            global.
        loss: Loss of each example. Defaults to cross-entropy.
        measures: Further metrics. Defaults to `accuracy`.
        accumulation: Micro-batches that a batch is computed in (gradient accumulation). Each is a slice of
            the global batch, spread over the devices: a device has its share of the first, then of the
            second, and so on. The model's normalizations must know their number (`over_micro_batches`).
        frozen: Patterns of paths of parameters whose gradient is zero and is not computed.

    Example:
        >>> train_step = jax.jit(make_train_step(model, optimizer, augment, schedule=schedule, seed=0))
        >>> state, metrics = train_step(state, batch)
    """
    loss_of, measure = loss or cross_entropy, measures or accuracy

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:

        def differentiate(part: Batch, carried: PyTree, number: Int[Array, ""]) -> tuple[PyTree, PyTree]:
            keys = keys_of_examples(seed, AUGMENTATION_STREAM, state.step, part["index"])
            images = augment(keys, part["image"], state.image_mean)
            place = lax.axis_index(axis_name) + lax.axis_size(axis_name) * number if axis_name else number
            dropout = jax.random.fold_in(_step_key(seed, DROPOUT_STREAM, state.step), place)
            examples = _step_key(seed, EXAMPLES_STREAM, state.step)
            if accumulation > 1:  # Positions in a part come again in the next.
                examples = jax.random.fold_in(examples, number)
            rngs = {"dropout": dropout, EXAMPLES_RNG: examples}

            def loss_function(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
                variables = {
                    "params": hold_frozen(params, frozen),
                    **carried,
                    "batch_stats": state.batch_stats,
                }
                logits, updated = model.apply(variables, images, train=True, mutable=list(carried), rngs=rngs)
                mean = loss_of(logits, part["label"]).mean()
                return mean, (logits, carried | updated)

            (mean, (logits, updated)), gradients = jax.value_and_grad(loss_function, has_aux=True)(
                state.params
            )
            return (gradients, {"loss": mean, **measure(logits, part["label"])}), updated

        carried = {"batch_stats": state.batch_stats}
        if accumulation > 1:
            carried["moments"] = jax.tree.map(jnp.zeros_like, state.batch_stats)
        means, carried = mean_over_parts(differentiate, batch, carried, parts=accumulation)
        gradients, metrics = lax.pmean(means, axis_name) if axis_name else means
        error = 1 - metrics["top1"] if "top1" in metrics else metrics["loss"]
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, value=error)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        metrics["learning_rate"] = schedule(state.step) * rate_factor(opt_state)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=carried["batch_stats"],
            opt_state=opt_state,
        )
        return state, metrics

    return train_step


def make_evaluation_step(
    model: nn.Module,
    normalize: Callable[[Array, Array], Array],
    *,
    axis_name: str | None = None,
    sums: SumsOfBatch | None = None,
) -> EvaluationStep:
    """Returns `evaluation_step(state, batch) -> sums` over the global batch's unmasked examples.

    Args:
        model: The network.
        normalize: (uint8 images, image mean) → images as the network takes them.
        axis_name: Mapped axis of the global batch; None gives a step for plain `jax.jit`.
        sums: What is summed. Defaults to `masked_sums`: the number of examples, the cross-entropy, and the
            examples whose label is the most likely, or among the five most likely.

    Example:
        >>> evaluation_step = jax.jit(make_evaluation_step(model, lambda images, mean: images - mean))
        >>> sums = evaluation_step(state, batch)
    """

    def evaluation_step(state: TrainState, batch: Batch) -> Sums:
        images = normalize(batch["image"], state.image_mean)
        logits = apply_in_slices(model, state.variables, images)
        summed = (sums or masked_sums)(logits, batch["label"], batch["mask"])
        return lax.psum(summed, axis_name) if axis_name else summed

    return evaluation_step


def evaluate(
    evaluation_step: EvaluationStep, state: PyTree, batches: Iterable[HostBatch], mapping: Mapping
) -> dict[str, np.ndarray]:
    """Returns the means over the examples of a split, and `examples`, their number, in float64.

    Args:
        evaluation_step: Evaluation step, mapped by `mapping`. Its sums may have axes, for example one of
            seeds.
        state: State, placed by `mapping`.
        batches: This process's part of the split's batches.
        mapping: The devices of the run.
    """
    totals: dict[str, np.ndarray] = {}
    for batch in batches:
        # Adding up on the host waits for each batch: no two are under way, which the collectives on CPU need.
        for name, value in evaluation_step(state, mapping.shard(batch)).items():
            totals[name] = totals.get(name, 0) + np.asarray(value, np.float64)
    examples = totals.pop("examples")
    return {name: value / examples for name, value in totals.items()} | {"examples": examples}


def as_numbers(results: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the results of `evaluate` as numbers, `examples` as a whole one."""
    return {name: value.item() for name, value in results.items()} | {"examples": int(results["examples"])}


def accuracy(logits: Float[Array, "n c"], labels: Int[Array, " n"]) -> dict[str, Array]:
    """Returns `top1`, the share of examples whose label has the largest logit."""
    return {"top1": jnp.mean(jnp.argmax(logits, -1) == labels, dtype=logits.dtype)}


def masked_sums(logits: Float[Array, "n c"], labels: Int[Array, " n"], mask: Bool[Array, " n"]) -> Sums:
    """Returns `examples`, `loss`, `top1` and, beyond five classes, `top5`, summed over unmasked examples."""
    label_logit = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    # Ties count against the model, and so does NaN: equal or undefined logits do not score.
    rank = jnp.sum(~(logits < label_logit), axis=-1) - 1
    values = {
        "examples": jnp.ones_like(labels),
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        "top1": (rank < 1).astype(jnp.int32),
    }
    if logits.shape[-1] > 5:
        values["top5"] = (rank < 5).astype(jnp.int32)
    return {name: jnp.sum(jnp.where(mask, value, 0)) for name, value in values.items()}


def cross_entropy(
    logits: Float[Array, "n c"], labels: Int[Array, " n"], *, smoothing: float = 0.0
) -> Float[Array, " n"]:
    """Returns the loss of each example.

    `smoothing` is the share of a label spread over all classes (arXiv 1512.00567, §7).
    """
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _step_key(seed: int | Array, stream: int, step: Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)


def keys_of_examples(
    seed: int | Array, stream: int, step: Int[Array, ""], index: Int[Array, " n"]
) -> jax.Array:
    """Returns a key [n] for every example, folded from seed, step and place in the global batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(_step_key(seed, stream, step), index)
