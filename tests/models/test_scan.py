"""A net whose identical blocks are one loop computes what the unrolled one does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import create_model, stack_blocks, unstack_blocks
from resnet_jax.models import ModelError, ScannedStage


def same(one, other) -> None:  # type: ignore[no-untyped-def]
    one, other = flatten_dict(one, sep="/"), flatten_dict(other, sep="/")
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def results(model, variables, images):  # type: ignore[no-untyped-def]
    """Returns logits, updated statistics and gradients, the latter two of every block by itself."""
    labels = jnp.arange(len(images)) % model.num_classes

    def loss(params):  # type: ignore[no-untyped-def]
        logits, updated = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), (
            logits,
            updated["batch_stats"],
        )

    gradients, (logits, statistics) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    return logits, unstack_blocks(statistics), unstack_blocks(gradients)


def errors(one, other) -> list[float]:  # type: ignore[no-untyped-def]
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return [float(jnp.linalg.norm(a - b) / (jnp.linalg.norm(a) + 1e-30)) for a, b in pairs]


NETS = [
    ("cifar_resnet26", {}, 16),
    ("cifar_resnet26", {"shortcut": "C"}, 16),
    ("cifar_plain26", {}, 16),
    ("resnet34", {"width": 4, "num_classes": 5}, 64),
    ("resnet50", {"width": 4, "num_classes": 5, "stride_on": "3x3"}, 64),
]


@pytest.mark.slow
@pytest.mark.parametrize("remat", [0, 2])
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "options", "size"), NETS)
def test_logits_statistics_and_gradients_equal_the_unrolled_ones(name, options, size, remat) -> None:
    images = jnp.asarray(np.random.RandomState(0).standard_normal((4, size, size, 3)))
    unrolled = create_model(name, dtype="float64", **options)
    variables = unrolled.lazy_init(jax.random.key(0), jax.ShapeDtypeStruct(images.shape, images.dtype))
    scanned = unrolled.clone(stage=partial(ScannedStage, remat=remat))
    logits, statistics, gradients = results(unrolled, variables, images)
    again = results(scanned, stack_blocks(variables), images)
    assert max(errors(logits, again[0])) < 1e-12
    assert max(errors(statistics, again[1])) < 1e-12
    assert max(errors(gradients, again[2])) < 1e-8
    evaluated = unrolled.apply(variables, images), scanned.apply(stack_blocks(variables), images)
    assert max(errors(*evaluated)) < 1e-12


@pytest.mark.slow
def test_in_float32_logits_and_statistics_agree() -> None:
    images = jnp.asarray(np.random.RandomState(0).standard_normal((8, 16, 16, 3)), jnp.float32)
    unrolled = create_model("cifar_resnet20")
    variables = unrolled.init(jax.random.key(0), images)
    one, other = (
        results(unrolled, variables, images),
        results(unrolled.clone(stage=ScannedStage), stack_blocks(variables), images),
    )
    assert max(errors(one[0], other[0])) < 1e-5
    assert max(errors(one[1], other[1])) < 1e-5


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet14"])
def test_a_seed_gives_the_same_net_and_nothing_is_lost(name: str) -> None:
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    model = create_model(name)
    variables = model.lazy_init(jax.random.key(3), images)
    stacked = model.clone(stage=ScannedStage).lazy_init(jax.random.key(3), images)
    same(stacked, stack_blocks(variables))
    same(unstack_blocks(stacked), variables)
    same(stack_blocks(stacked), stacked)
    same(unstack_blocks(variables), variables)


def test_the_program_does_not_grow_with_depth() -> None:
    def size(depth: int) -> int:
        model = create_model(f"cifar_resnet{depth}", stage=ScannedStage)
        variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        images = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32)
        gradient = jax.grad(
            lambda params, stats, x: model.apply({"params": params, "batch_stats": stats}, x).sum()
        )
        return len(
            jax.jit(gradient)
            .lower(variables["params"], variables["batch_stats"], images)
            .as_text()
            .splitlines()
        )

    assert size(50) == size(20)


def test_a_net_without_blocks_has_no_scan() -> None:
    with pytest.raises(ModelError, match="vgg16 has no option stage"):
        create_model("vgg16", stage=ScannedStage)
