"""Names and options of nets, and the errors for those that do not exist."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import ModelError, create_model, default_image_size, list_models, summarize
from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from tests.models.numpy_reference import randomised


def drawn_variables(model, size):
    return randomised(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3))), seed=0)


def test_every_listed_net_is_constructed():
    names = list_models()
    assert {"resnet18", "resnet152", "plain34", "vgg19", "cifar_resnet1202", "cifar_plain56"} <= set(names)
    assert len(names) == len(set(names)) == 20
    for name in names:
        assert create_model(name).num_classes == (10 if name.startswith("cifar") else 1000)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "plain18", "vgg16", "cifar_resnet20", "cifar_plain20"]
)
def test_logits_have_a_row_for_every_image_and_a_column_for_every_class(name):
    model = create_model(name, num_classes=7)
    images = jnp.zeros((2, 32, 32, 3))
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert logits.shape == (2, 7)
    assert logits.dtype == jnp.float32


def test_image_sizes():
    assert [default_image_size(name) for name in ("resnet50", "vgg16", "cifar_plain20")] == [224, 224, 32]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenet", {}, "unknown model 'mobilenet'.*resnet50"),
        ("resnet", {}, "unknown model 'resnet'"),
        ("resnet51", {}, "unknown model 'resnet51'.*18, 34, 50, 101, 152"),
        ("plain50", {}, "unknown model 'plain50'.* are 18, 34$"),
        ("vgg17", {}, "unknown model 'vgg17'.* are 16, 19$"),
        ("cifar_resnet21", {}, "6n \\+ 2.* nearest are 20 and 26"),
        ("cifar_resnet25", {}, "nearest are 20 and 26"),
        ("cifar_plain2", {}, "nearest are 8 and 14"),
        ("resnet50", {"dropout": 0.5}, "resnet50 has no option dropout.*stage_depths.*stride_on"),
        ("vgg16", {"shortcut": "A"}, "vgg16 has no option shortcut"),
        ("resnet50", {"shortcut": "D"}, "unknown shortcut 'D'.*A, A_centered, B, C"),
        ("plain34", {"shortcut": "A"}, "plain34 is a plain net.*resnet34"),
        ("resnet34", {"stride_on": "3x3"}, "stride_on is an option of bottleneck blocks.*resnet34"),
        ("cifar_resnet20", {"stride_on": "1x1"}, "stride_on is an option of bottleneck blocks"),
        ("resnet50", {"stride_on": "5x5"}, "unknown stride_on '5x5'.*1x1, 3x3"),
        ("resnet50", {"variance": "exact"}, "unknown variance 'exact'.*biased, unbiased"),
        ("resnet50", {"dtype": "int8"}, "unknown dtype 'int8'.*float32, bfloat16, float64"),
        ("resnet50", {"num_classes": 0}, "num_classes must be at least 1"),
        ("resnet50", {"stage_depths": (1, 1, 1, 1)}, "stage_depths \\(1, 1, 1, 1\\).*depth 10 or 14"),
        ("cifar_resnet20", {"stage_depths": (1, 1, 1)}, "stage_depths \\(1, 1, 1\\).*depth 8 or 11"),
        ("vgg16", {"stage_depths": (1, 1, 2, 2, 2)}, "stage_depths \\(1, 1, 2, 2, 2\\).*depth 11"),
        ("resnet2", {"stage_depths": ()}, "at least 1"),
    ],
)
def test_what_does_not_exist_is_an_error_that_says_what_does(name, options, message):
    with pytest.raises(ModelError, match=message):
        create_model(name, **options)


def test_stage_depths_make_nets_of_other_depths():
    basic = create_model("resnet10", stage_depths=(1, 1, 1, 1))
    assert basic.block is BasicBlock
    assert create_model("resnet14", stage_depths=[1, 1, 1, 1]).block is BottleneckBlock
    convolutions = [
        row for row in summarize(basic, 32).rows if row.kind == "Conv" and "projection" not in row.path
    ]
    assert len(convolutions) + 1 == 10
    assert create_model("cifar_resnet20", stage_depths=(2, 3, 4)).stage_depths == (2, 3, 4)
    assert len(summarize(create_model("vgg11", stage_depths=(1, 1, 2, 2, 2)), 32).rows) == 11


@pytest.mark.parametrize("depth", [8, 14, 20, 50])
def test_cifar_nets_of_depth_6n_plus_2_have_that_many_layers_with_weights(depth):
    for family in ("resnet", "plain"):
        rows = summarize(create_model(f"cifar_{family}{depth}"), 32).rows
        assert sum(row.macs > 0 for row in rows) == depth


def test_default_shortcuts_are_the_papers():
    def projections(name, **options):
        return sum(
            "projection/" in f"{row.path}/" for row in summarize(create_model(name, **options), 32).rows
        )

    assert projections("resnet50") == projections("resnet50", shortcut="B") == 4
    assert projections("resnet18") == 3
    assert (
        projections("resnet18", shortcut="A") == projections("cifar_resnet20") == projections("plain18") == 0
    )
    assert projections("cifar_resnet20", shortcut="B") == 2
    assert projections("cifar_resnet20", shortcut="C") == 9
    assert projections("resnet34", shortcut="C") == 16


def test_a_shortcut_may_be_a_function():
    def half(x, *, channels, stride, conv, norm):
        del conv, norm
        return 0.5 * jnp.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(0, channels - x.shape[-1])])

    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    nets = [create_model("cifar_resnet8", shortcut=shortcut) for shortcut in (half, "A")]
    variables = drawn_variables(nets[0], 8)
    logits = [jax.jit(net.apply)(variables, images) for net in nets]
    assert np.abs(logits[0] - logits[1]).max() > 0.01


@pytest.mark.parametrize("name", ["cifar_resnet8", "vgg16"])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("float32", "float32"), (jnp.bfloat16, "float32"), ("bfloat16", "float32"), (np.float64, "float64")],
)
def test_parameters_statistics_and_logits_are_float32_or_float64_where_all_is(name, dtype, stored, x64):
    del x64
    model = create_model(name, dtype=dtype)
    seen = set()

    def watch(call, arguments, options, context):
        output = call(*arguments, **options)
        if type(context.module).__name__ in ("Conv", "BatchNorm"):
            seen.add(str(output.dtype))
        return output

    with nn.intercept_methods(watch):
        logits, variables = jax.eval_shape(
            model.init_with_output, jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.float32)
        )
    assert {str(array.dtype) for array in jax.tree.leaves(variables)} == {stored}
    assert str(logits.dtype) == stored
    assert seen == {jnp.dtype(dtype).name}


def test_bfloat16_logits_are_near_those_of_float32():
    images = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)
    full, half = (create_model("cifar_resnet8", dtype=dtype) for dtype in ("float32", "bfloat16"))
    variables = drawn_variables(full, 16)
    expected, actual = (jax.jit(model.apply)(variables, images) for model in (full, half))
    error = jnp.linalg.norm(actual - expected) / jnp.linalg.norm(expected)
    assert 1e-4 < error < 0.03


def test_options_of_batch_normalization_reach_it():
    images = np.random.default_rng(1).normal(1, 1, (2, 8, 8, 3)).astype(np.float32)
    variables = drawn_variables(create_model("cifar_resnet8"), 8)

    @functools.partial(jax.jit, static_argnums=0)
    def stem_statistics(model):
        _, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return updated["batch_stats"]["stem"]["norm"]

    def of_batch(**options):
        """The batch's mean and variance, from how far they move the running ones."""
        momentum = options.get("momentum", 0.9)
        before, after = (
            variables["batch_stats"]["stem"]["norm"],
            stem_statistics(create_model("cifar_resnet8", **options)),
        )
        return jax.tree.map(lambda old, new: (new - momentum * old) / (1 - momentum), before, after)

    biased, unbiased, faster = of_batch(), of_batch(variance="unbiased"), of_batch(momentum=0.8)
    np.testing.assert_allclose(unbiased["var"], biased["var"] * 128 / 127, rtol=1e-4)
    np.testing.assert_allclose(faster["mean"], biased["mean"], rtol=1e-3, atol=1e-4)
    logits = [
        jax.jit(create_model("cifar_resnet8", epsilon=epsilon).apply)(variables, images)
        for epsilon in (1e-5, 1.0)
    ]
    assert np.abs(logits[0] - logits[1]).max() > 0.01
