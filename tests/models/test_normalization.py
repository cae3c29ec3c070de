"""Batch normalization against NumPy in closed form, on one device and on several.

What it keeps and what it sends.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from resnet_jax.models import ScannedStage, create_model
from resnet_jax.models.normalization import BatchNorm, check_group_size
from tests.models.numpy_reference import normalization

pytestmark = pytest.mark.usefixtures("x64")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# Eight images whose means and spreads differ, so that every grouping gives other statistics.

IMAGES = (
    normal(8, 3, 5, 4) * np.linspace(0.5, 3, 8)[:, None, None, None]
    + np.linspace(-4, 9, 8)[:, None, None, None]
)
WEIGHTS = normal(*IMAGES.shape, seed=1)
VARIABLES = {
    "params": {"scale": np.array([0.5, 1.0, 2.0, -1.5]), "bias": normal(4, seed=2)},
    "batch_stats": {"mean": normal(4, seed=3), "var": np.array([0.5, 1.0, 2.0, 3.0])},
}


def train_on_devices(mapping, devices, **options):
    """Returns outputs, running statistics and the gradient of the sum of WEIGHTS · output, computed on that
    many devices."""
    layer = BatchNorm(
        use_running_average=False, axis_name="batch" if mapping else None, dtype=jnp.float64, **options
    )

    def loss(params, images, weights):
        variables = {"params": params, "batch_stats": VARIABLES["batch_stats"]}
        outputs, updated = layer.apply(variables, images, mutable=["batch_stats"])
        return jnp.sum(weights * outputs), (outputs, updated["batch_stats"])

    def compute(params, images, weights):
        (of_params, of_images), (outputs, statistics) = jax.grad(loss, argnums=(0, 1), has_aux=True)(
            params, images, weights
        )
        if mapping:
            of_params = lax.psum(of_params, "batch")
        return (outputs, of_images), (statistics, of_params)

    if mapping == "pmap":
        mapped = jax.pmap(
            compute, "batch", in_axes=(None, 0, 0), out_axes=(0, None), devices=jax.devices()[:devices]
        )
        split = (devices, 8 // devices, *IMAGES.shape[1:])
        by_image, by_channel = mapped(VARIABLES["params"], IMAGES.reshape(split), WEIGHTS.reshape(split))
        by_image = [array.reshape(IMAGES.shape) for array in by_image]
    else:
        if mapping == "shard_map":
            mesh, spread, whole = (
                Mesh(jax.devices()[:devices], "batch"),
                PartitionSpec("batch"),
                PartitionSpec(),
            )
            compute = jax.shard_map(
                compute,
                mesh=mesh,
                in_specs=(whole, spread, spread),
                out_specs=(spread, whole),
                check_vma=False,
            )
        by_image, by_channel = jax.jit(compute)(VARIABLES["params"], IMAGES, WEIGHTS)
    return *by_image, *by_channel


def expected_training(group_size, unbiased=False, momentum=0.9):
    """The same in closed form, NumPy and two passes."""
    axes = (1, 2, 3)
    groups, weights = (array.reshape(-1, group_size, 3, 5, 4) for array in (IMAGES, WEIGHTS))
    deviation = np.sqrt(groups.var(axes, keepdims=True) + 1e-5)
    standard = (groups - groups.mean(axes, keepdims=True)) / deviation
    scale, bias = VARIABLES["params"]["scale"], VARIABLES["params"]["bias"]
    along = standard * (weights * standard).mean(axes, keepdims=True)
    of_images = scale / deviation * (weights - weights.mean(axes, keepdims=True) - along)
    of_params = {"scale": (weights * standard).sum((0, *axes)), "bias": weights.sum((0, *axes))}
    batch = {"mean": IMAGES.mean((0, 1, 2)), "var": IMAGES.var((0, 1, 2), ddof=int(unbiased))}
    statistics = {
        key: momentum * VARIABLES["batch_stats"][key] + (1 - momentum) * batch[key] for key in batch
    }
    return (
        (standard * scale + bias).reshape(IMAGES.shape),
        of_images.reshape(IMAGES.shape),
        statistics,
        of_params,
    )


@pytest.mark.parametrize(
    ("mapping", "devices"), [(None, 1), ("pmap", 4), ("shard_map", 4), ("pmap", 8), ("shard_map", 8)]
)
@pytest.mark.parametrize("group_size", [1, 2, 4, 8, None])
def test_batch_normalization_is_the_same_function_on_any_number_of_devices(mapping, devices, group_size):
    actual = train_on_devices(mapping, devices, group_size=group_size)
    expected = expected_training(group_size or 8)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10), tuple(actual), expected)


@pytest.mark.parametrize("mapping", [None, "pmap", "shard_map"])
def test_running_variance_counts_the_spread_of_the_groups_means(mapping):
    _, _, statistics, _ = train_on_devices(mapping, 4 if mapping else 1, group_size=2, momentum=0.0)
    np.testing.assert_allclose(statistics["var"], IMAGES.var((0, 1, 2)), rtol=1e-12)
    average_of_variances = IMAGES.reshape(4, 2, 3, 5, 4).var((1, 2, 3)).mean(0)
    assert (statistics["var"] > 2 * average_of_variances).all()


@pytest.mark.parametrize("mapping", [None, "pmap"])
def test_unbiased_running_variance_and_biased_normalization(mapping):
    actual = train_on_devices(mapping, 4 if mapping else 1, group_size=4, variance="unbiased", momentum=0.7)
    expected = expected_training(4, unbiased=True, momentum=0.7)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10), tuple(actual), expected)


@pytest.mark.parametrize(
    ("size", "images", "devices"),
    [(3, 8, 1), (16, 8, 1), (3, 2, 4), (6, 2, 4), (8, 2, 2), (0, 8, 1), (-4, 8, 1)],
)
def test_a_group_that_does_not_fit_is_an_error(size, images, devices):
    with pytest.raises(ValueError, match=f"groups of {size} images does not fit {devices} device"):
        check_group_size(size, images, devices)


@pytest.mark.parametrize(
    ("size", "images", "devices"), [(8, 8, 1), (1, 8, 1), (2, 8, 4), (4, 2, 4), (8, 2, 4), (32, 128, 4)]
)
def test_a_group_that_fits(size, images, devices):
    check_group_size(size, images, devices)


def test_training_with_a_group_that_does_not_fit_is_an_error():
    for mapping, devices in ((None, 1), ("pmap", 4), ("shard_map", 4)):
        with pytest.raises(ValueError, match=f"groups of 3 images does not fit {devices} device"):
            train_on_devices(mapping, devices, group_size=3)


def test_evaluation_uses_the_running_statistics_and_leaves_them_alone():
    layer = BatchNorm(use_running_average=True, group_size=3, axis_name="batch", dtype=jnp.float64)
    outputs, updated = layer.apply(VARIABLES, IMAGES[:5], mutable=["batch_stats"])
    expected = normalization(IMAGES[:5], VARIABLES["params"], VARIABLES["batch_stats"])
    np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-12)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], VARIABLES["batch_stats"])


def test_initialization_does_not_look_at_the_images():
    variables = BatchNorm(use_running_average=False, dtype=jnp.float64).init(jax.random.key(0), IMAGES)
    expected = {
        "params": {"scale": np.ones(4), "bias": np.zeros(4)},
        "batch_stats": {"mean": np.zeros(4), "var": np.ones(4)},
    }
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_statistics_of_bfloat16_images_are_those_of_float32():
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    layer = BatchNorm(use_running_average=False, momentum=0.0, dtype=jnp.bfloat16)
    variables = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), VARIABLES)
    outputs, updated = layer.apply(variables, images, mutable=["batch_stats"])
    assert outputs.dtype == jnp.bfloat16
    exact = np.asarray(images, np.float64)
    np.testing.assert_allclose(updated["batch_stats"]["var"], exact.var((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], exact.mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize(("group_size", "sums"), [(None, 1), (8, 1), (4, 3), (2, 2), (1, 2)])
def test_what_devices_send_each_other(group_size, sums):
    """A group over all devices has the statistics of the batch.

    Its moments are summed once, and nothing else is.
    """
    layer = BatchNorm(use_running_average=False, axis_name="batch", group_size=group_size, dtype=jnp.float64)

    def train(images):
        return layer.apply(VARIABLES, images, mutable=["batch_stats"])

    program = jax.make_jaxpr(train, axis_env=[("batch", 4)])(IMAGES[:2])
    assert sum("psum" in equation.primitive.name for equation in program.eqns) == sums


def test_a_loop_over_blocks_keeps_the_input_of_a_normalization_and_no_other_array_of_its_size():
    """Of a block: its input, what both convolutions give and the first activation, and where the two
    activations let through."""
    model = create_model("cifar_resnet20", width=3, stage=ScannedStage)
    images = jnp.zeros((2, 8, 8, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def backward(variables, images):
        def logits(params):
            return model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])[0]

        return jax.vjp(logits, variables["params"])[1]

    program = jax.make_jaxpr(backward)(variables, images)
    for side, channels in ((8, 3), (4, 6), (2, 12)):
        (loop,) = [
            e
            for e in program.eqns
            if e.primitive.name == "scan" and e.outvars[0].aval.shape == (2, side, side, channels)
        ]
        kept = [var.aval for var in loop.outvars[1:] if var.aval.size >= 2 * 2 * side * side * channels]
        assert sorted(aval.dtype.name for aval in kept) == ["bool"] * 2 + ["float32"] * 4
