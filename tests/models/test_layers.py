"""Convolution, pooling and shortcuts against NumPy."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from resnet_jax.models.kernels.pooling import max_pool
from resnet_jax.models.layers import Conv, global_average_pool, parameter_dtype
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.shortcuts import SHORTCUTS
from tests.models.numpy_reference import convolution, maximum, normalization, randomised

pytestmark = pytest.mark.usefixtures("x64")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(
    ("size", "stride"), [((1, 1), 1), ((1, 1), 2), ((3, 3), 1), ((3, 3), 2), ((7, 7), 2), ((5, 3), 2)]
)
def test_convolution_pads_alike_on_all_sides(side, size, stride):
    x = normal(2, side, side + 3, 3)
    layer = Conv(4, size, stride, dtype=jnp.float64)
    kernel = normal(*size, 3, 4, seed=1)
    expected = convolution(x, kernel, stride)
    np.testing.assert_allclose(layer.apply({"params": {"kernel": kernel}}, x), expected, rtol=0, atol=1e-12)
    assert expected.shape[1:3] == (-(-side // stride), -(-(side + 3) // stride))


def test_same_would_pad_a_strided_convolution_otherwise():
    x, layer = normal(1, 8, 8, 3), Conv(4, (3, 3), 2, dtype=jnp.float64)
    kernel = normal(3, 3, 3, 4, seed=1)
    same = lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    ours = layer.apply({"params": {"kernel": kernel}}, x)
    assert same.shape == ours.shape
    assert np.abs(same - ours).max() > 0.1


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (2, 2, 0)])
def test_max_pool(side, size, stride, padding):
    x = normal(2, side, side, 3) - 5
    np.testing.assert_array_equal(max_pool(x, size, stride, padding), maximum(x, size, stride, padding))


def test_global_average_pool_sums_bfloat16_in_float32():
    x = jnp.full((1, 64, 64, 2), 1.0078125, jnp.bfloat16)
    assert global_average_pool(x).dtype == jnp.float32
    np.testing.assert_array_equal(global_average_pool(x), np.full((1, 2), 1.0078125, np.float32))


@pytest.mark.parametrize(
    ("dtype", "stored"), [("float32", "float32"), ("bfloat16", "float32"), ("float64", "float64")]
)
def test_dtype_of_parameters(dtype, stored):
    assert parameter_dtype(jnp.dtype(dtype)) == jnp.dtype(stored)


# Shortcuts.


class Around(nn.Module):
    option: str
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x):
        conv = partial(Conv, dtype=jnp.float64)
        norm = partial(BatchNorm, use_running_average=True, dtype=jnp.float64)
        return SHORTCUTS[self.option](x, channels=self.channels, stride=self.stride, conv=conv, norm=norm)


def expected_shortcut(option, x, variables, channels, stride):
    same = x.shape[-1] == channels and stride == 1
    if option == "none":
        return 0
    if option in ("A", "A_centered") or (option == "B" and same):
        out = np.zeros((x.shape[0], -(-x.shape[1] // stride), -(-x.shape[2] // stride), channels))
        first = (channels - x.shape[-1]) // 2 if option == "A_centered" else 0
        out[..., first : first + x.shape[-1]] = x[:, ::stride, ::stride]
        return out
    params, statistics = variables["params"], variables["batch_stats"]
    projected = convolution(x, params["projection"]["kernel"], stride)
    return normalization(projected, params["projection_norm"], statistics["projection_norm"])


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (8, 2), (16, 1)])
@pytest.mark.parametrize("option", SHORTCUTS)
def test_shortcut_options(option, channels, stride, side):
    x = normal(2, side, side, 4)
    module = Around(option, channels, stride)
    variables = randomised(jax.eval_shape(module.init, jax.random.key(0), x), seed=1)
    assert bool(variables) == (option == "C" or (option == "B" and (channels, stride) != (4, 1)))
    actual, expected = module.apply(variables, x), expected_shortcut(option, x, variables, channels, stride)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    assert np.shape(actual) == np.shape(expected)
