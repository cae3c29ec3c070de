"""How nets are put together: names, sizes of maps, plain nets, and VGG's layers."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax.models import create_model, summarize
from tests.models.numpy_reference import convolution, maximum, normalization, randomised, relu


def drawn(model, size):
    return randomised(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3))), seed=0)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        (
            "resnet18",
            224,
            {
                "stem": (112, 64),
                "stage1": (56, 64),
                "stage2": (28, 128),
                "stage3": (14, 256),
                "stage4": (7, 512),
            },
        ),
        (
            "resnet152",
            224,
            {
                "stem": (112, 64),
                "stage1": (56, 256),
                "stage2": (28, 512),
                "stage3": (14, 1024),
                "stage4": (7, 2048),
            },
        ),
        (
            "resnet50",
            97,
            {
                "stem": (49, 64),
                "stage1": (25, 256),
                "stage2": (13, 512),
                "stage3": (7, 1024),
                "stage4": (4, 2048),
            },
        ),
        ("cifar_resnet56", 32, {"stem": (32, 16), "stage1": (32, 16), "stage2": (16, 32), "stage3": (8, 64)}),
        ("cifar_plain20", 33, {"stem": (33, 16), "stage1": (33, 16), "stage2": (17, 32), "stage3": (9, 64)}),
    ],
)
def test_maps_of_a_stage_have_the_sizes_of_table_1(name, size, expected):
    last = {}
    for row in summarize(create_model(name), size).rows[:-1]:
        last[row.path.split("/")[0]] = row.output_shape
    assert last == {stage: (side, side, channels) for stage, (side, channels) in expected.items()}


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "cifar_resnet20", "plain18"])
def test_arrays_are_named_by_what_they_are(name):
    shapes = jax.eval_shape(create_model(name).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    layer = r"(stem/(conv|norm)|stage[1-4]/block\d+/((conv|norm)[123]|projection|projection_norm)|head)"
    for path in flatten_dict(shapes["params"], sep="/"):
        assert re.fullmatch(rf"{layer}/(kernel|scale|bias)", path)
    for path in flatten_dict(shapes["batch_stats"], sep="/"):
        assert re.fullmatch(rf"{layer}/(mean|var)", path)
    assert not any(
        "conv" in path and path.endswith("bias") for path in flatten_dict(shapes["params"], sep="/")
    )


def test_a_plain_net_is_a_chain_of_layers():
    model = create_model("cifar_plain8", dtype="float32")
    variables, images = drawn(model, 12), np.random.default_rng(1).normal(size=(2, 12, 12, 3))
    params, statistics = variables["params"], variables["batch_stats"]

    def layer(x, *path, stride=1, conv="conv", norm="norm"):
        weights, averages = params, statistics
        for name in path:
            weights, averages = weights[name], averages[name]
        return relu(
            normalization(convolution(x, weights[conv]["kernel"], stride), weights[norm], averages[norm])
        )

    x = layer(images, "stem")
    for stage in (1, 2, 3):
        for index in (1, 2):
            stride = 2 if index == 1 and stage > 1 else 1
            x = layer(x, f"stage{stage}", "block1", stride=stride, conv=f"conv{index}", norm=f"norm{index}")
    expected = x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]
    actual = jax.jit(model.apply)(variables, images.astype(np.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_residual_net_whose_branches_are_zero_is_its_shortcuts():
    """With every block's last scale and bias zero, option A leaves the stem's output, subsampled, with zero
    channels behind."""
    model = create_model("cifar_resnet20", dtype="float32")
    variables, images = drawn(model, 12), np.random.default_rng(1).normal(size=(2, 12, 12, 3))
    params = flatten_dict(variables["params"], sep="/")
    for path in params:
        if "norm2" in path:
            params[path][...] = 0
    stem = variables["params"]["stem"], variables["batch_stats"]["stem"]
    x = relu(normalization(convolution(images, stem[0]["conv"]["kernel"]), stem[0]["norm"], stem[1]["norm"]))
    expected = x[:, ::4, ::4].mean((1, 2)) @ params["head/kernel"][:16] + params["head/bias"]
    actual = jax.jit(model.apply)(variables, images.astype(np.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_training_updates_statistics_and_evaluation_does_not():
    model = create_model("cifar_resnet8")
    variables, images = drawn(model, 8), np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    _, trained = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(
        variables, images
    )
    before, after = (flatten_dict(tree["batch_stats"], sep="/") for tree in (variables, trained))
    assert before.keys() == after.keys()
    assert all(np.abs(after[path] - before[path]).max() > 0 for path in before)
    _, evaluated = jax.jit(lambda v, x: model.apply(v, x, mutable=["batch_stats"]))(variables, images)
    jax.tree.map(
        np.testing.assert_array_equal,
        evaluated["batch_stats"],
        jax.tree.map(np.float32, variables["batch_stats"]),
    )


def test_group_size_and_mapped_axis_reach_every_normalization():
    model = create_model("cifar_resnet8", group_size=3, axis_name="devices")
    seen = []

    def note(call, arguments, options, context):
        if context.method_name == "_group_statistics":
            seen.append((context.module.group_size, context.module.axis_name))
        return call(*arguments, **options)

    def train(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    images = jax.ShapeDtypeStruct((2, 6, 8, 8, 3), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(jax.vmap(train, in_axes=(None, 0), axis_name="devices"), variables, images)
    assert seen == [(3, "devices")] * 7


def test_vgg_is_a_chain_of_layers():
    model = create_model("vgg8", stage_depths=(1, 1, 1, 1, 1), width=4, hidden=16, num_classes=3)
    variables, images = drawn(model, 64), np.random.default_rng(1).normal(size=(2, 64, 64, 3))
    params = variables["params"]
    assert "batch_stats" not in variables
    x = images
    for stage in range(1, 6):
        layer = params[f"stage{stage}_conv1"]
        x = maximum(relu(convolution(x, layer["kernel"]) + layer["bias"]), size=2, stride=2, padding=0)
    x = x.reshape(2, -1)
    for name in ("hidden1", "hidden2"):
        x = relu(x @ params[name]["kernel"] + params[name]["bias"])
    expected = x @ params["head"]["kernel"] + params["head"]["bias"]
    actual = jax.jit(model.apply)(variables, images.astype(np.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_vgg_drops_units_in_training_only():
    model = create_model("vgg8", stage_depths=(1, 1, 1, 1, 1), width=4, hidden=64, num_classes=3)
    variables, images = (
        drawn(model, 32),
        np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32),
    )
    train = jax.jit(lambda v, x, key: model.apply(v, x, train=True, rngs={"dropout": key}))
    one, same, other = (train(variables, images, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
