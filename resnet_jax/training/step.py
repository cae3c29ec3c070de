"""The training step and the evaluation step of one device, written against the mapped axis of the global batch."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from resnet_jax.data.batches import EvaluationBatches
from resnet_jax.models.rng_streams import EXAMPLES_RNG
from resnet_jax.models.sliced_apply import apply_in_slices
from resnet_jax.parallel import Mapping
from resnet_jax.training.accumulation import mean_over_parts
from resnet_jax.training.optimizer import rate_factor
from resnet_jax.training.schedules import Schedule
from resnet_jax.training.state import AUGMENTATION_STREAM, DROPOUT_STREAM, EXAMPLES_STREAM, TrainState

Batch = dict[str, Array]
"""A device's part: image uint8[n, H, W, 3], label int32[n], index int32[n] in the global batch, mask bool[n]."""

Augment = Callable[[jax.Array, Array, Array], Array]
"""(keys [n], images uint8[n, H, W, 3], image_mean) → normalised images float32[n, h, w, 3]."""

Loss = Callable[[Array, Array], Array]
"""(logits [n, classes], labels int32[n]) → loss of each example [n]."""

Sums = dict[str, Array]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformationExtraArgs,
    augment: Augment,
    *,
    schedule: Schedule,
    seed: int | Array,
    axis_name: str,
    loss: Loss | None = None,
    accumulation: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Returns `train_step(state, batch) -> (state, metrics)`, a pure function of one device's part of the batch.

    The gradient is that of the mean loss over the global batch; weight decay is the optimiser's. Metrics are of the
    global batch before the update: `loss` and `top1` (a fraction), means; the `gradient_norm` without decay; and the
    `learning_rate` of the update.

    Args:
        model: With `axis_name` set, so that groups of batch normalisation may span devices.
        optimizer: Makes updates of gradients; is given the step's training error as `value`.
        augment: Of images; its keys are folded from the seed, the step and the example's index in the global batch.
        schedule: Only to report the rate.
        loss: None is cross-entropy.
        seed: Of augmentation, dropout and stochastic depth, see `resnet_jax.models.rng_streams`; it may be traced, as where
            steps of several seeds are one program.
        axis_name: The mapped axis.
        accumulation: Parts that a batch is computed in, one after the other, each a slice of the global batch that is spread over
            the devices; a device has its share of the first part, then of the second, and so on. The model's normalisations
            must know their number (`over_micro_batches`).
    """

    loss_of = loss or cross_entropy

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:

        def differentiate(part: Batch, carried: Any, number: Int[Array, ""]) -> tuple[Any, Any]:
            keys = _example_keys(seed, AUGMENTATION_STREAM, state.step, part["index"])
            images = augment(keys, part["image"], state.image_mean)
            place = lax.axis_index(axis_name) + lax.axis_size(axis_name) * number
            dropout = jax.random.fold_in(_step_key(seed, DROPOUT_STREAM, state.step), place)
            examples = _step_key(seed, EXAMPLES_STREAM, state.step)
            if accumulation > 1:  # Positions in a part come again in the next.
                examples = jax.random.fold_in(examples, number)
            rngs = {"dropout": dropout, EXAMPLES_RNG: examples}

            def loss_function(params: Any) -> tuple[Array, tuple[Array, Any]]:
                variables = {"params": params, **carried, "batch_stats": state.batch_stats}
                logits, updated = model.apply(variables, images, train=True, mutable=list(carried), rngs=rngs)
                mean = loss_of(logits, part["label"]).mean()
                return mean, (logits, carried | updated)

            (mean, (logits, updated)), gradients = jax.value_and_grad(loss_function, has_aux=True)(
                state.params
            )
            top1 = jnp.mean(jnp.argmax(logits, -1) == part["label"], dtype=logits.dtype)
            return (gradients, {"loss": mean, "top1": top1}), updated

        carried = {"batch_stats": state.batch_stats}
        if accumulation > 1:
            carried["moments"] = jax.tree.map(jnp.zeros_like, state.batch_stats)
        means, carried = mean_over_parts(differentiate, batch, carried, parts=accumulation)
        gradients, metrics = lax.pmean(means, axis_name)
        updates, opt_state = optimizer.update(
            gradients, state.opt_state, state.params, value=1 - metrics["top1"]
        )
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
    model: nn.Module, normalize: Callable[[Array, Array], Array], *, axis_name: str
) -> Callable[[TrainState, Batch], Sums]:
    """Returns `evaluation_step(state, batch) -> sums` over the global batch's unmasked examples.

    `examples` counts them, `loss` sums their cross-entropies, `top1` and `top5` count those whose label is the likeliest, or
    among the five likeliest; with fewer than six classes there is no `top5`. Add the sums of batches and divide once.
    """

    def evaluation_step(state: TrainState, batch: Batch) -> Sums:
        images = normalize(batch["image"], state.image_mean)
        logits = apply_in_slices(model, state.variables, images)
        return lax.psum(masked_sums(logits, batch["label"], batch["mask"]), axis_name)

    return evaluation_step


def evaluate(
    evaluation_step: Callable[[TrainState, Batch], Sums],
    state: TrainState,
    batches: EvaluationBatches,
    mapping: Mapping,
) -> dict[str, float]:
    """Returns `loss`, `top1` and `top5` as means over every example of a split, and `examples`, their number.

    Args:
        evaluation_step: Mapped by `mapping`.
        state: Placed by `mapping`.
        batches: Of the split, this process's part.
        mapping: Of the run.
    """
    totals: dict[str, float] = {}
    for batch in batches:
        # Adding up on the host waits for each batch: no two are under way, which the CPU's collectives need.
        for name, value in evaluation_step(state, mapping.shard(batch)).items():
            totals[name] = totals.get(name, 0.0) + float(value)
    examples = totals.pop("examples")
    return {name: value / examples for name, value in totals.items()} | {"examples": int(examples)}


def masked_sums(logits: Float[Array, "n c"], labels: Int[Array, " n"], mask: Bool[Array, " n"]) -> Sums:
    """Returns `examples`, `loss`, `top1` and, for more than five classes, `top5`, summed over the unmasked examples."""
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
    """Returns the loss of each example; `smoothing` is the share of a label spread over all classes (arXiv 1512.00567, §7)."""
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _step_key(seed: int | Array, stream: int, step: Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)


def _example_keys(seed: int | Array, stream: int, step: Array, index: Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(_step_key(seed, stream, step), index)
