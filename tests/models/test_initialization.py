"""He initialization (arXiv 1502.01852).

Zero-mean normal weights of variance 2 / fan_in, and what it is for.
"""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax.models import create_model

NETS = {
    "plain34": {},
    "resnet14": {"stage_depths": (1, 1, 1, 1), "shortcut": "C", "width": 32},
    "cifar_resnet20": {"shortcut": "B"},
    "vgg16": {"hidden": 512},
    "resnet18": {"shortcut": "C"},
    "resnet50": {},
}
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name in ("resnet18", "resnet50") else ()) for name in NETS
]


@cache
def initial_variables(name):
    """Drawn from the generator that compiles fastest."""
    model = create_model(name, **NETS[name])
    return jax.device_get(jax.jit(model.init)(jax.random.key(7, impl="rbg"), jnp.zeros((1, 32, 32, 3))))


def initial_params(name):
    return flatten_dict(initial_variables(name)["params"], sep="/")


@pytest.mark.parametrize("name", NAMES)
def test_kernels_have_variance_2_over_fan_in(name):
    """Within five standard errors.

    Of the mean σ / √n, of the variance σ² √(2 / n), of the share within 1σ √(p (1 - p) / n).
    """
    kernels = {path: value for path, value in initial_params(name).items() if path.endswith("kernel")}
    assert len(kernels) >= 16
    for path, kernel in kernels.items():
        fan_in = np.prod(kernel.shape[:-1])  # [height, width, C, filters] or [in, out]
        variance, count = 2 / fan_in, kernel.size
        assert abs(kernel.mean()) < 5 * np.sqrt(variance / count), path
        assert abs(np.square(kernel).mean() / variance - 1) < 5 * np.sqrt(2 / count), path
        share = np.mean(np.abs(kernel) < np.sqrt(variance))
        assert abs(share - 0.6827) < 5 * np.sqrt(0.6827 * 0.3173 / count), path


@pytest.mark.parametrize("name", NAMES)
def test_scales_are_one_and_biases_zero(name):
    for path, value in initial_params(name).items():
        if path.endswith("scale"):
            assert (value == 1).all(), path
        if path.endswith("bias"):
            assert (value == 0).all(), path


def test_no_two_kernels_are_equal():
    kernels = [value for path, value in initial_params("plain34").items() if value.shape == (3, 3, 512, 512)]
    assert len(kernels) == 5
    assert all(np.abs(a - b).max() > 0 for i, a in enumerate(kernels) for b in kernels[:i])


def test_activations_of_plain_34_neither_vanish_nor_explode():
    """Before training, batch normalization with its initial statistics is the identity.

    Only the initialization keeps the scale.

    Half of variance 2 / fan_in would lose a factor of √2 a layer, 10⁵ in 33.
    """
    model, variables = create_model("plain34"), initial_variables("plain34")
    images = np.random.default_rng(0).normal(size=(2, 128, 128, 3)).astype(np.float32)

    @partial(jax.jit, static_argnames="train")
    def root_mean_squares(variables, train):
        seen = []

        def note(call, arguments, options, context):
            output = call(*arguments, **options)
            if type(context.module).__name__ == "Conv":
                seen.append(jnp.sqrt(jnp.square(output).mean()))
            return output

        with nn.intercept_methods(note):
            model.apply(variables, images, train=train, mutable=["batch_stats"])
        return jnp.stack(seen)

    for train in (False, True):
        scales = root_mean_squares(variables, train=train)
        assert scales.shape == (33,)
        assert scales.min() > 0.1
        assert scales.max() < 10
