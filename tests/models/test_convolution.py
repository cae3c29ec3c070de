"""Gradients of the convolution and of the maximum on CPU equal XLA's own, and finite differences."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from resnet_jax.models.kernels.convolution import (
    WEIGHT_GRADIENTS,
    _cpu_gradients,
    convolve,
    pixels_at_once,
    several_pixels,
    weight_gradient_form,
)
from resnet_jax.models.kernels.pooling import max_pool

SHAPES = st.tuples(
    st.integers(1, 3),  # images
    st.integers(5, 17),  # height
    st.integers(5, 17),  # width
    st.sampled_from((1, 3, 4, 128)),  # channels
    st.integers(1, 5),  # filters
    st.sampled_from(((1, 1), (3, 3), (7, 7), (1, 3), (5, 3))),
    st.integers(1, 3),  # stride
)


def plain(x, kernel, stride):
    padding = [(side // 2, side // 2) for side in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def drawn(shape, dtype=jnp.float64, seed=0):
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape), dtype)


def arguments(shape, dtype=jnp.float64):
    images, height, width, channels, filters, size, stride = shape
    return (
        drawn((images, height, width, channels), dtype),
        drawn((*size, channels, filters), dtype, 1),
        stride,
    )


def close(one, other, tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(b), 1e-30)


def pulled(function, *arguments, seed=2):  # type: ignore[no-untyped-def]
    """Returns the value and the gradients for a drawn gradient of the value, computed by one program."""
    out = jax.eval_shape(function, *arguments)
    gradient = drawn(out.shape, out.dtype, seed)

    @jax.jit
    def compute(gradient, *arguments):  # type: ignore[no-untyped-def]
        value, pull = jax.vjp(function, *arguments)
        return value, pull(gradient)

    return compute(gradient, *arguments)


@settings(max_examples=8)
@given(shape=SHAPES, dtype=st.sampled_from(((jnp.float64, 1e-10), (jnp.float32, 1e-4), (jnp.bfloat16, 3e-2))))
@pytest.mark.usefixtures("x64")
def test_gradients_equal_those_of_xla(shape, dtype) -> None:  # type: ignore[no-untyped-def]
    kind, tolerance = dtype
    x, kernel, stride = arguments(shape, kind)
    if pixels_at_once(x.shape, kernel.shape, stride) == 1 and (stride == 1 or kernel.shape[:2] != (1, 1)):
        np.testing.assert_array_equal(convolve(x, kernel, stride), plain(x, kernel, stride))
    theirs, ours = (
        pulled(lambda x, kernel, conv=conv: conv(x, kernel, stride), x, kernel) for conv in (plain, convolve)
    )
    close(ours, theirs, tolerance)


@settings(max_examples=5)
@given(shape=SHAPES)
@pytest.mark.usefixtures("x64")
def test_every_form_gives_the_gradient_of_the_weights(shape) -> None:  # type: ignore[no-untyped-def]
    x, kernel, stride = arguments(shape)
    out, (expected,) = pulled(lambda kernel: plain(x, kernel, stride), kernel)
    gradient = drawn(out.shape, seed=2)
    for name, form in WEIGHT_GRADIENTS.items():
        if name != "product" or kernel.shape[:2] == (1, 1):
            found = jax.jit(form, static_argnums=(2, 3))(x, gradient, kernel.shape[:2], stride)
            close(found, expected, 1e-10)


@settings(max_examples=4)
@given(shape=SHAPES, seed=st.integers(0, 1000))
@pytest.mark.usefixtures("x64")
def test_gradients_equal_finite_differences(shape, seed) -> None:  # type: ignore[no-untyped-def]
    x, kernel, stride = arguments(shape)
    weights = drawn(plain(x, kernel, stride).shape, seed=seed + 1)
    loss = jax.jit(lambda x, kernel: jnp.vdot(weights, jnp.sin(convolve(x, kernel, stride))))
    direction = drawn(x.shape, seed=seed + 2), drawn(kernel.shape, seed=seed + 3)
    step = 1e-6 / np.sqrt(kernel[..., 0].size)
    ahead, behind = (
        loss(x + sign * step * direction[0], kernel + sign * step * direction[1]) for sign in (1, -1)
    )
    gradients = jax.jit(jax.grad(loss, (0, 1)))(x, kernel)
    slope = sum(np.vdot(a, b) for a, b in zip(gradients, direction, strict=True))
    assert float(slope) == pytest.approx(float((ahead - behind) / (2 * step)), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(
    ("width", "channels", "filters", "size", "pixels"),
    [
        (32, 16, 16, (3, 3), 2),
        (32, 3, 16, (3, 3), 4),
        (32, 16, 8, (3, 3), 4),
        (32, 16, 12, (5, 3), 2),
        (32, 3, 32, (3, 7), 2),
        (32, 3, 64, (3, 3), 1),
        (32, 24, 16, (3, 3), 1),
        (32, 16, 24, (3, 3), 1),
        (33, 16, 16, (3, 3), 1),
        (30, 3, 16, (3, 3), 1),
        (32, 16, 16, (3, 1), 1),
    ],
)
@pytest.mark.usefixtures("x64")
def test_several_pixels_at_once_equal_one_by_one(width, channels, filters, size, pixels) -> None:
    x, kernel, _ = arguments((2, 9, width, channels, filters, size, 1))
    assert pixels_at_once(x.shape, kernel.shape, 1) == pixels
    assert pixels_at_once(x.shape, kernel.shape, 2) == pixels_at_once(x.shape, kernel.shape, 1, 4) == 1
    ours, theirs = (
        pulled(lambda x, kernel, conv=conv: conv(x, kernel, 1), x, kernel) for conv in (convolve, plain)
    )
    close(jax.jit(several_pixels)(x, kernel), theirs[0], 1e-12)
    close(ours, theirs, 1e-12)


def test_only_a_cpu_computes_several_pixels_at_once() -> None:
    traced = jax.jit(lambda x, kernel: convolve(x, kernel, 1)).trace(
        jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))
    )
    for platform, strides in {"cpu": "stride = [1, 2]", "tpu": "stride = [1, 1]"}.items():
        assert strides in traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.usefixtures("x64")
def test_second_order_vmap_and_scan() -> None:
    x, kernel = drawn((2, 6, 6, 3)), drawn((3, 3, 3, 3), seed=1)
    directions = drawn((4, *kernel.shape), seed=2)

    def curved(conv):
        gradient = jax.grad(lambda kernel: jnp.sum(jnp.sin(conv(x, kernel, 1))))
        return jax.jit(jax.vmap(lambda direction: jax.jvp(gradient, (kernel,), (direction,))[1]))(directions)

    close(curved(convolve), curved(plain), 1e-10)

    def repeated(conv):
        return jax.jit(
            jax.grad(
                lambda kernel: jnp.sum(
                    lax.scan(lambda x, _: (jnp.tanh(conv(x, kernel, 1)), None), x, length=3)[0]
                )
            )
        )(kernel)

    close(repeated(convolve), repeated(plain), 1e-10)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda kernel: convolve(x, kernel, 1), (kernel,), (kernel,))


def test_other_platforms_have_the_gradient_of_xla() -> None:
    """On CPU the gradient of a 1×1 kernel is a product of matrices; elsewhere it stays a convolution."""

    def lowered(conv, platform):
        gradient = jax.grad(lambda x, kernel: jnp.sum(conv(x, kernel, 2) ** 2), (0, 1))
        traced = jax.jit(gradient).trace(jnp.ones((2, 8, 8, 3)), jnp.ones((1, 1, 3, 4)))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.dot_general" in lowered(convolve, "cpu")
    for platform in ("tpu", "cuda"):
        ours, theirs = lowered(convolve, platform), lowered(plain, platform)
        assert "stablehlo.dot_general" not in ours
        assert ours.count("stablehlo.convolution") == theirs.count("stablehlo.convolution") == 3
        # What lies between the places of a 1×1 kernel has no gradient: nothing is computed for it.
        assert "lhs_dilate = [2, 2]" in theirs
        assert "lhs_dilate = [2, 2]" not in ours


@pytest.mark.parametrize("looped", [False, True])
def test_the_gradient_of_the_weights_is_not_merged_with_what_came_before(looped) -> None:
    """Otherwise XLA computes all from the beginning of the stage again, in the transposition of every
    convolution's input."""

    def block(x, kernel):
        return jnp.tanh(convolve(x, kernel, 1)) + x, None

    def chain(kernels):
        x = jnp.ones((2, 8, 8, 32))
        return jnp.sum(
            lax.scan(block, x, kernels)[0] if looped else block(block(x, kernels[0])[0], kernels[1])[0]
        )

    program = jax.jit(jax.grad(chain)).lower(jnp.ones((2, 3, 3, 32, 32))).compile().as_text()
    assert len(re.findall(r" call\(.*by_convolution", program)) == (1 if looped else 2)
    # In its own computation it is transposed as it comes: nothing else is computed there.
    bodies = re.findall(r"^%by_convolution.*?^}", program, re.MULTILINE | re.DOTALL)
    assert bodies
    for body in bodies:
        assert "transpose" in body
        assert "tanh" not in body


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "form"),
    [
        ((8, 56, 56, 64), (1, 1, 64, 256), 1, "product"),
        ((8, 56, 56, 64), (3, 3, 64, 64), 1, "convolution"),
        ((8, 14, 14, 256), (3, 3, 256, 256), 1, "columns"),
        ((8, 28, 28, 128), (3, 3, 128, 256), 2, "columns"),
        ((64, 32, 32, 16), (3, 3, 16, 16), 1, "convolution"),
    ],
)
def test_the_rule_for_the_gradient_of_the_weights(shape, kernel, stride, form) -> None:
    assert weight_gradient_form(shape, kernel, stride) == form


@settings(max_examples=6)
@given(
    side=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    size=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.sampled_from(((0, 0), (1, 1), (0, 1), (1, 0))),
    seed=st.integers(0, 1000),
)
@pytest.mark.usefixtures("x64")
def test_the_gradient_of_the_maximum_equals_that_of_xla(side, size, stride, padding, seed) -> None:
    """Small whole numbers, so that there are ties, which the first place wins."""
    if max(padding) >= size:
        return
    x = jnp.asarray(np.random.RandomState(seed).randint(0, 4, (2, *side, 3)), jnp.float64)
    around = [(0, 0), padding, padding, (0, 0)]

    def theirs(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), around)

    pooled, expected = pulled(theirs, x, seed=seed + 1)
    ours, gradients = pulled(lambda x: max_pool(x, size, stride, padding), x, seed=seed + 1)
    np.testing.assert_array_equal(ours, pooled)
    close(gradients, expected, 1e-10)


def test_cpu_gradients_are_what_runs_here() -> None:
    x, kernel = drawn((2, 6, 6, 3), jnp.float32), drawn((3, 3, 3, 4), jnp.float32, 1)
    gradient = drawn((2, 6, 6, 4), jnp.float32, 2)
    ours = jax.vjp(lambda x, kernel: convolve(x, kernel, 1), x, kernel)[1](gradient)
    for one, other in zip(ours, _cpu_gradients(x, kernel, gradient, stride=1, groups=1), strict=True):
        np.testing.assert_array_equal(one, other)
