"""The two blocks of Fig. 5 against the same in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.layers import Conv
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.shortcuts import SHORTCUTS
from tests.models.numpy_reference import convolution, normalization, randomised, relu

pytestmark = pytest.mark.usefixtures("x64")


def run_block(block, x, **options):
    """Returns the output of a block with random variables, in evaluation, and the variables."""
    module = block(
        conv=partial(Conv, dtype=jnp.float64),
        norm=partial(BatchNorm, use_running_average=True, dtype=jnp.float64),
        activation=jax.nn.relu,
        **options,
    )
    variables = randomised(jax.eval_shape(module.init, jax.random.key(0), x), seed=1)
    return jax.jit(module.apply)(variables, x), variables


def layer(x, variables, number, stride=1, names=("conv{}", "norm{}")):
    conv, norm = (name.format(number) for name in names)
    out = convolution(x, variables["params"][conv]["kernel"], stride)
    return normalization(out, variables["params"][norm], variables["batch_stats"][norm])


def shortcut(option, x, variables, channels, stride):
    if option == "none":
        return 0
    if "projection" in variables["params"]:
        return layer(x, variables, "", stride, names=("projection", "projection_norm"))
    new = channels - x.shape[-1]
    before = new // 2 if option == "A_centered" else 0
    return np.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(before, new - before)])


@pytest.mark.parametrize(("stride", "filters", "side"), [(1, 4, 5), (2, 8, 6)])
@pytest.mark.parametrize("option", SHORTCUTS)
def test_basic_block(option, stride, filters, side):
    x = np.random.default_rng(0).normal(size=(2, side, side, 4))
    actual, variables = run_block(BasicBlock, x, filters=filters, stride=stride, shortcut=SHORTCUTS[option])
    y = relu(layer(x, variables, 1, stride))
    expected = relu(layer(y, variables, 2) + shortcut(option, x, variables, filters, stride))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    assert ("projection" in variables["params"]) == (option == "C" or (option == "B" and stride == 2))


@pytest.mark.parametrize(("stride", "filters", "side"), [(1, 2, 5), (2, 4, 7)])
@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
@pytest.mark.parametrize("option", SHORTCUTS)
def test_bottleneck_block(option, stride_on, stride, filters, side):
    x = np.random.default_rng(0).normal(size=(2, side, side, 8))
    options = {"filters": filters, "stride": stride, "stride_on": stride_on, "shortcut": SHORTCUTS[option]}
    actual, variables = run_block(BottleneckBlock, x, **options)
    y = relu(layer(x, variables, 1, stride if stride_on == "1x1" else 1))
    y = relu(layer(y, variables, 2, stride if stride_on == "3x3" else 1))
    expected = relu(layer(y, variables, 3) + shortcut(option, x, variables, 4 * filters, stride))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    shapes = [variables["params"][f"conv{i}"]["kernel"].shape for i in (1, 2, 3)]
    assert shapes == [(1, 1, 8, filters), (3, 3, filters, filters), (1, 1, filters, 4 * filters)]


def test_the_stride_of_a_bottleneck_is_on_the_first_1x1_unless_asked_otherwise():
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 8))
    outputs = [
        run_block(BottleneckBlock, x, filters=4, stride=2, shortcut=SHORTCUTS["B"], **options)[0]
        for options in ({}, {"stride_on": "1x1"}, {"stride_on": "3x3"})
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 0.1
