"""SGD as the paper's authors ran it, with what its recipes need.

Decay on plateau, and a warm-up that ends by the error.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import KeyPath
from jaxtyping import Array, Bool, Float, PyTree

from resnet_jax.models.layers import path_matches
from resnet_jax.training.config_sections import FACTOR
from resnet_jax.training.schedules import Schedule


def sgd(
    schedule: Schedule | float,
    *,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    decay_mask: str = "all",
    momentum_form: str = "caffe",
    gradient_clip: float | None = None,
    trust_coefficient: float | None = None,
    rate_factors: tuple[optax.GradientTransformationExtraArgs, ...] = (),
) -> optax.GradientTransformationExtraArgs:
    """Returns stochastic gradient descent with momentum.

    `update` takes the training error of the step as `value`.

    In the form "caffe", that of the paper's authors, v ← momentum · v + rate · (g + weight_decay · w) and w ←
    w - v: what was gathered at an old rate keeps that rate. In the form "pytorch" (also optax.sgd) v ←
    momentum · v + g + weight_decay · w and w ← w - rate · v. They differ whenever the rate changes.

    Args:
        schedule: Learning rate, or a function of the step that gives it; steps count from 0.
        momentum: 0.9 in the paper (§3.4).
        weight_decay: 1e-4 in the paper, the factor of w in the gradient (half of it is the factor of w² in
            the loss).
        decay_mask: Parameters that decay: "all", as Caffe's weight_decay on every learnable blob; or
            "kernels", those of convolutions and fully connected layers. The paper leaves open which.
        momentum_form: "caffe" or "pytorch".
        gradient_clip: Largest norm of the whole gradient before decay; None leaves it alone, as the paper
            does.
        trust_coefficient: η of LARS (arXiv 1708.03888, eq. 6): the gradient of a kernel w, its decay
            included, is scaled by η · |w| / |g + weight_decay · w|, or left where one of the norms is 0;
            biases and scales are left. None is off.
        rate_factors: Transformations that scale the rate by what they see of the error: `warm_up_until`,
            `decay_on_plateau`.

    Example:
        >>> optimizer = sgd(step_decay(0.1, boundaries=(32_000, 48_000)))
    """
    clip = [optax.clip_by_global_norm(gradient_clip)] if gradient_clip else []
    decay = optax.add_decayed_weights(weight_decay, mask=None if decay_mask == "all" else is_kernel)
    trust = (
        [optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient), is_kernel)]
        if trust_coefficient
        else []
    )
    rate = [optax.scale_by_learning_rate(schedule), *rate_factors]
    trace = [optax.trace(momentum)]
    ordered = [*rate, *trace] if momentum_form == "caffe" else [*trace, *rate]
    return optax.with_extra_args_support(optax.chain(*clip, decay, *trust, *ordered))


def is_kernel(params: optax.Params) -> optax.Params:
    """Returns a tree like `params` that is True at kernels, False at biases and normalization scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def by_module(
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    frozen: Sequence[str] = (),
    rate_factors: Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer with frozen modules, bit for bit, and others that have another learning rate.

    A constant factor of the rate is one of the update, in both forms of the momentum.

    Args:
        optimizer: Optimizer of all parameters.
        frozen: Patterns of paths, see `path_matches`: their gradients are not seen and their parameters stay.
        rate_factors: See FACTOR; the first that means a parameter counts, and others have 1.
    """
    parsed = [
        (match["pattern"], float(match["factor"]))
        for text in rate_factors
        if (match := FACTOR.fullmatch(text))
    ]

    def factor(path: KeyPath) -> float:
        name = "/".join(entry.key for entry in path)
        if path_matches(name, frozen):
            return 0.0
        return next((value for pattern, value in parsed if path_matches(name, [pattern])), 1.0)

    def scaled(updates: optax.Updates, *, only_frozen: bool) -> optax.Updates:
        def one(path: KeyPath, update: Array) -> Array:
            value = factor(path)
            if value == 0:
                # Not a product: an infinite gradient of a frozen module is none.
                return jnp.zeros_like(update)
            return update if only_frozen or value == 1 else update * jnp.asarray(value, update.dtype)

        return jax.tree_util.tree_map_with_path(one, updates)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, PyTree]:
        updates, state = optimizer.update(scaled(updates, only_frozen=True), state, params, **extra)
        return scaled(updates, only_frozen=False), state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def hold_frozen(params: PyTree, frozen: Sequence[str]) -> PyTree:
    """Returns parameters of which the frozen ones get no gradient, so that none is computed.

    Args:
        params: Parameters, inside of the function that is differentiated.
        frozen: Patterns of paths, see `path_matches`.
    """
    if not frozen:
        return params

    def one(path: KeyPath, leaf: Array) -> Array:
        return (
            lax.stop_gradient(leaf) if path_matches("/".join(entry.key for entry in path), frozen) else leaf
        )

    return jax.tree_util.tree_map_with_path(one, params)


class WarmUpState(NamedTuple):
    """State of `warm_up_until`: the factor of the rate, and the smoothed error."""

    scale: Float[Array, ""]
    warming: Bool[Array, ""]
    error: Float[Array, ""]


def warm_up_until(
    error: float, *, factor: float, smoothing: float = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Scales updates by a factor until the training error falls below a value (§4.2, 110 layers).

    The paper trains it at the rate 0.01 until the training error is below 80 %, about 400 iterations, and
    then at 0.1. A batch of 128 tells its error to 3.5 %, so the error is smoothed: e ← smoothing · e + (1 -
    smoothing) · error of the step, from e = 1.

    Args:
        error: Below which the warm-up ends, a fraction.
        factor: Factor of the rate during the warm-up: 0.1 for 0.01 instead of 0.1.
        smoothing: See above.
    """

    def init(_: optax.Params) -> WarmUpState:
        return WarmUpState(jnp.float32(factor), jnp.bool_(True), jnp.float32(1.0))

    def update(
        updates: optax.Updates, state: WarmUpState, params: PyTree = None, *, value: Array, **_: object
    ) -> tuple[optax.Updates, WarmUpState]:
        del params
        smoothed = smoothing * state.error + (1 - smoothing) * value.astype(jnp.float32)
        warming = state.warming & (smoothed >= error)
        scale = jnp.where(warming, jnp.float32(factor), jnp.float32(1.0))
        return jax.tree.map(lambda u: u * scale.astype(u.dtype), updates), WarmUpState(
            scale, warming, smoothed
        )

    return optax.GradientTransformationExtraArgs(init, update)


def decay_on_plateau(
    *, factor: float, patience: int, window: int, threshold: float
) -> optax.GradientTransformationExtraArgs:
    """Scales updates by a further factor whenever the training error has stopped falling (§3.4).

    Args:
        factor: 0.1 in the paper.
        patience: Windows without a fall by `threshold` before the rate is changed.
        window: Steps that the error is averaged over.
        threshold: Relative fall of the error from the best window so far that counts as one.
    """
    plateau = optax.contrib.reduce_on_plateau(
        factor, patience=patience, rtol=threshold, accumulation_size=window
    )

    def update(
        updates: optax.Updates, state: PyTree, params: PyTree = None, *, value: Array, **extra: object
    ) -> tuple[optax.Updates, PyTree]:
        return plateau.update(updates, state, params, value=value.astype(state.avg_value.dtype), **extra)

    return optax.GradientTransformationExtraArgs(plateau.init, update)


def rate_factor(opt_state: optax.OptState) -> Array:
    """Returns the product of the factors that `rate_factors` of `sgd` applied in the last update."""
    found = optax.tree.get_all_with_path(opt_state, "scale")
    scales = [scale for path, scale in found if isinstance(path[-1], optax.tree_utils.NamedTupleKey)]
    return reduce(jnp.multiply, scales, jnp.float32(1.0))
