"""The optimiser is Caffe's: the rate inside the momentum, decay in the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_jax.training.optimizer import is_kernel, sgd
from resnet_jax.training.schedules import step_decay

STEPS, DROP = 20, 12


def gradients() -> np.ndarray:
    return np.random.RandomState(0).randn(STEPS, 5)


def apply(optimizer: optax.GradientTransformation) -> list[np.ndarray]:
    params = {"kernel": jnp.arange(1.0, 6.0)}
    state = optimizer.init(params)
    path = []
    for gradient in gradients():
        updates, state = optimizer.update({"kernel": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params["kernel"]))
    return path


def caffe(momentum: float, decay: float) -> list[np.ndarray]:
    """v ← momentum · v + rate · (g + decay · w);  w ← w - v, in NumPy."""
    w, v, path = np.arange(1.0, 6.0), np.zeros(5), []
    for step, gradient in enumerate(gradients()):
        rate = 0.1 if step < DROP else 0.01
        v = momentum * v + rate * (gradient + decay * w)
        w = w - v
        path.append(w)
    return path


@pytest.mark.usefixtures("x64")
def test_twenty_updates_across_a_drop_of_the_rate_equal_caffes() -> None:
    optimizer = sgd(step_decay(0.1, boundaries=(DROP,)), momentum=0.9, weight_decay=0.05)
    np.testing.assert_allclose(apply(optimizer), caffe(0.9, 0.05), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_trace_then_scale_is_another_optimiser() -> None:
    schedule = step_decay(0.1, boundaries=(DROP,))
    other = optax.chain(optax.add_decayed_weights(0.05), optax.sgd(schedule, momentum=0.9))
    path, expected = apply(other), caffe(0.9, 0.05)
    np.testing.assert_allclose(path[:DROP], expected[:DROP], rtol=1e-12)
    assert np.abs(path[-1] - expected[-1]).max() > 1e-3


@pytest.mark.parametrize("decayed", ["all", "kernels"])
def test_the_named_parameters_decay(decayed: str) -> None:
    params = {"conv": {"kernel": jnp.ones(2)}, "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
    optimizer = sgd(step_decay(1.0, boundaries=()), momentum=0.0, weight_decay=0.5, decayed=decayed)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert updates["conv"]["kernel"].tolist() == [-0.5, -0.5]
    others = [-0.5, -0.5] if decayed == "all" else [0.0, 0.0]
    assert updates["norm"]["scale"].tolist() == updates["norm"]["bias"].tolist() == others
    assert is_kernel(params) == {"conv": {"kernel": True}, "norm": {"scale": False, "bias": False}}


def test_the_rate_falls_at_the_boundaries_after_the_warm_up() -> None:
    schedule = step_decay(0.1, boundaries=(32_000, 48_000), warmup_steps=400, warmup_rate=0.01)
    steps = [0, 399, 400, 31_999, 32_000, 47_999, 48_000, 10**6]
    rates = [float(schedule(jnp.asarray(step))) for step in steps]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)


def test_boundaries_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match=r"boundaries \(5, 3\) must rise"):
        step_decay(0.1, boundaries=(5, 3))
