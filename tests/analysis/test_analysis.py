"""The analyses against closed forms, finite differences and NumPy, on the smallest net in float64."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from resnet_jax import create_model, features
from resnet_jax.analysis import (
    ensemble_probabilities,
    estimate_statistics,
    filter_normalized_direction,
    hessian_vector_product,
    interpolate,
    loss_function,
    loss_slice,
    member_logits,
    per_example_gradients,
    stack_variables,
    top_eigenvalue,
)
from resnet_jax.models import ModelError

CLASSES, IMAGES = 3, 4


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def net() -> tuple[Any, dict[str, Any], jax.Array, jax.Array]:
    """Model, variables with statistics of their own, images and labels."""
    model = create_model("cifar_resnet6", stage_depths=(1, 1), width=2, num_classes=CLASSES, dtype="float64")
    rng = np.random.RandomState(0)
    images = jnp.asarray(rng.standard_normal((IMAGES, 8, 8, 3)))
    variables = drawn_variables(model, 0)
    return model, variables, images, jnp.asarray(rng.randint(0, CLASSES, IMAGES))


def drawn_variables(model: Any, seed: int) -> dict[str, Any]:
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    rng = np.random.RandomState(seed)
    return {
        "params": jax.tree.map(
            lambda a: jnp.asarray(0.5 * rng.standard_normal(a.shape)), variables["params"]
        ),
        "batch_stats": jax.tree.map(
            lambda a: jnp.asarray(rng.uniform(0.5, 1.5, a.shape)), variables["batch_stats"]
        ),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_per_example_gradients(net: Any) -> None:
    """The last layer's are (p - y) and its outer product with the pooled features.

    Their mean is the gradient of the mean.
    """
    model, variables, images, labels = net
    gradients = jax.jit(lambda *data: per_example_gradients(model, variables, *data))(images, labels)
    logits = np.asarray(jax.jit(model.apply)(variables, images))
    difference = softmax(logits) - np.eye(CLASSES)[np.asarray(labels)]
    pooled = np.asarray(jax.jit(lambda x: features(model, variables, x)["pooled"])(images))
    np.testing.assert_allclose(gradients["head"]["bias"], difference, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        gradients["head"]["kernel"], np.einsum("nc,nk->nck", pooled, difference), rtol=1e-9, atol=1e-12
    )
    mean = jax.jit(jax.grad(loss_function(model, variables, images, labels)))(variables["params"])
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(one.mean(0), other, rtol=1e-9, atol=1e-12)


def test_a_product_with_the_hessian_is_the_difference_of_gradients(net: Any) -> None:
    model, variables, images, labels = net
    params, loss = variables["params"], loss_function(model, variables, images, labels)
    direction = filter_normalized_direction(params, seed=1)
    product = jax.jit(lambda p, d: ravel_pytree(hessian_vector_product(loss, p, d))[0])(params, direction)
    step = 1e-6

    @jax.jit
    def moved(by: float) -> jax.Array:
        return ravel_pytree(jax.grad(loss)(jax.tree.map(lambda p, d: p + by * d, params, direction)))[0]

    difference = (moved(step) - moved(-step)) / (2 * step)
    assert float(jnp.linalg.norm(product)) > 1e-3
    assert np.linalg.norm(product - difference) <= 1e-6 * np.linalg.norm(product)


def test_the_top_eigenvalue_of_a_quadratic_and_of_the_last_layer(net: Any) -> None:
    """Of ½ wᵀ A w it is that of A. Of the last layer's bias the Hessian is the mean of diag(p) - p pᵀ."""
    rng = np.random.RandomState(3)
    half = rng.standard_normal((6, 6))
    matrix = half + half.T
    values, vectors = np.linalg.eigh(matrix)
    found = top_eigenvalue(
        lambda w: w["a"] @ jnp.asarray(matrix) @ w["a"] / 2, {"a": jnp.zeros(6)}, iterations=6
    )
    np.testing.assert_allclose(found.value, values[-1], rtol=1e-9)
    np.testing.assert_allclose(abs(np.asarray(found.vector["a"]) @ vectors[:, -1]), 1, rtol=1e-9)
    assert found.residual < 1e-8
    assert top_eigenvalue(lambda w: 2 * w @ w, jnp.ones(5), iterations=5).value == pytest.approx(
        4
    )  # Spanned by one vector.

    model, variables, images, labels = net
    loss = loss_function(model, variables, images, labels)
    head = variables["params"]["head"]
    of_bias = lambda bias: loss({**variables["params"], "head": {**head, "bias": bias}})  # noqa: E731
    probabilities = softmax(np.asarray(model.apply(variables, images)))
    hessian = np.mean([np.diag(p) - np.outer(p, p) for p in probabilities], 0)
    assert top_eigenvalue(of_bias, head["bias"]).value == pytest.approx(
        np.linalg.eigvalsh(hessian)[-1], rel=1e-9
    )


def test_directions_have_the_norms_of_the_filters(net: Any) -> None:
    params = net[1]["params"]
    direction = filter_normalized_direction(params, seed=0)
    kernel, drawn = (np.asarray(tree["stage2"]["block1"]["conv1"]["kernel"]) for tree in (params, direction))
    np.testing.assert_allclose(
        np.linalg.norm(drawn.reshape(-1, 4), axis=0), np.linalg.norm(kernel.reshape(-1, 4), axis=0)
    )
    assert not np.allclose(
        drawn, filter_normalized_direction(params, seed=1)["stage2"]["block1"]["conv1"]["kernel"]
    )
    assert not direction["stem"]["norm"]["scale"].any()
    assert not direction["head"]["bias"].any()


def test_a_slice_of_a_quadratic_is_its_values() -> None:
    params = {"w": jnp.asarray([1.0, -2.0])}
    first, second = {"w": jnp.asarray([1.0, 0.0])}, {"w": jnp.asarray([1.0, 3.0])}
    along, across = np.linspace(-1, 1, 5), np.linspace(0, 2, 3)
    losses = loss_slice(lambda p: jnp.sum(p["w"] ** 2), params, [first, second], [along, across])
    wanted = [[(1 + a + b) ** 2 + (-2 + 3 * b) ** 2 for b in across] for a in along]
    np.testing.assert_allclose(losses, wanted)


@pytest.mark.slow
def test_a_slice_does_not_depend_on_the_size_of_filters_that_are_normalized(net: Any) -> None:
    """With statistics of the batch a net is one function whatever its filters are multiplied by (§4 of arXiv
    1712.09913)."""
    model, variables, images, labels = net
    loss = loss_function(
        model.clone(norm=lambda **k: model.norm(epsilon=0.0, **k)),
        variables,
        images,
        labels,
        batch_statistics=True,
    )
    params = variables["params"]
    larger = {name: part if name == "head" else _times_kernels(part, 7.0) for name, part in params.items()}
    along = jnp.linspace(-0.5, 0.5, 3)

    @jax.jit
    def line(params: Any) -> jax.Array:
        return loss_slice(loss, params, [filter_normalized_direction(params, seed=0)], [along])

    np.testing.assert_allclose(line(params), line(larger), rtol=1e-7)
    np.testing.assert_allclose(line(params)[1], jax.jit(loss)(params), rtol=1e-12)
    assert np.ptp(line(params)) > 1e-3


def _times_kernels(tree: Any, factor: float) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, a: a * factor if path[-1].key == "kernel" else a, tree
    )


def test_interpolation_ends_at_the_nets_and_refuses_others(net: Any) -> None:
    model, variables, *_ = net
    other = drawn_variables(model, 1)
    for share, wanted in ((0.0, variables), (1.0, other)):
        for one, two in zip(
            jax.tree.leaves(interpolate(variables, other, share)), jax.tree.leaves(wanted), strict=True
        ):
            np.testing.assert_allclose(one, two)
    middle = interpolate(variables, other, 0.25)["params"]["head"]["bias"]
    np.testing.assert_allclose(
        middle, 0.75 * variables["params"]["head"]["bias"] + 0.25 * other["params"]["head"]["bias"]
    )
    with pytest.raises(ModelError, match=r"params/head/bias is \(3,\) in one and \(5,\)"):
        interpolate(
            variables,
            jax.eval_shape(model.clone(num_classes=5).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3))),
            0.5,
        )


def test_recomputed_statistics_are_those_of_the_images(net: Any) -> None:
    """Of the first layer, over two batches, as NumPy has them of all images.

    Old statistics leave no trace.
    """
    model, variables, images, _ = net
    found = estimate_statistics(model, variables, [images[:2], images[2:]])["batch_stats"]["stem"]["norm"]
    kernel = np.asarray(variables["params"]["stem"]["conv"]["kernel"])
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    outputs = np.einsum("nhwcab,abck->nhwk", windows, kernel)
    np.testing.assert_allclose(found["mean"], outputs.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(found["var"], outputs.var((0, 1, 2)), rtol=1e-9)
    with pytest.raises(ModelError, match="no batches"):
        estimate_statistics(model, variables, [])


@pytest.mark.slow
def test_the_ensemble_is_the_mean_of_its_members(net: Any) -> None:
    model, variables, images, _ = net
    members = [variables, drawn_variables(model, 1), drawn_variables(model, 2)]
    stacked = stack_variables(members)
    apart = np.stack([np.asarray(model.apply(member, images)) for member in members])
    np.testing.assert_allclose(member_logits(model, stacked, images), apart, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        ensemble_probabilities(model, stacked, images), softmax(apart).mean(0), rtol=1e-9
    )
    with pytest.raises(ModelError, match="member 1 is of another net"):
        stack_variables([variables, {"params": {}}])
