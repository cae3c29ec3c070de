"""The parts that variants are made of, against NumPy, PyTorch's definitions and closed forms.

And published parameter counts.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import cli, create_model
from resnet_jax.models import ModelError, summarize
from resnet_jax.models.kernels.convolution import convolve
from resnet_jax.models.layers import Conv
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.shortcuts import SHORTCUTS
from resnet_jax.models.variants import VARIANTS
from resnet_jax.models.variants.downsampling import average_pool, blur_pool
from resnet_jax.models.variants.norms import GroupNorm, standardize_filters
from resnet_jax.models.variants.preactivation import PreactivationBlock, PreactivationBottleneckBlock
from resnet_jax.models.variants.residuals import keep_at_random, squeeze_and_excitation
from tests.models.numpy_reference import convolution, normalization, randomised, relu

WRN = {"shortcut": "B"}
PUBLISHED: list[tuple[str, list[str], dict[str, Any], int | float]] = [
    # Whole numbers are those of the authors' or of timm's nets, others millions as the papers print them.
    ("resnet50", ["preactivation"], {}, 25_549_352),  # timm's resnetv2_50
    ("cifar_resnet110", ["preactivation"], {}, 1.7),  # arXiv 1605.07146, Table 5
    ("cifar_resnet164", ["preactivation"], {"stage_depths": [18, 18, 18], **WRN}, 1.7),
    (
        "cifar_resnet26",
        ["preactivation", "wide:10"],
        WRN,
        36.5,
    ),  # WRN-28-10, which counts projections; arXiv 1605.07146, Table 4
    ("cifar_resnet14", ["preactivation", "wide:8"], WRN, 11.0),  # WRN-16-8
    ("cifar_resnet38", ["preactivation", "wide:4"], WRN, 8.9),  # WRN-40-4
    ("resnet50", ["wide:2"], {}, 68_883_240),  # torchvision's wide_resnet50_2
    # A convolution of 3×3×3×64 in place of one of 7×7×3×64; and the first stage's filters as they are.
    ("resnet50", ["small_stem", "width:64"], {}, 25_557_032 - 40 * 3 * 64),
    ("resnet50", ["resnext"], {}, 25_028_904),  # torchvision's resnext50_32x4d
    ("resnet101", ["resnext:32,8"], {}, 88_791_336),  # torchvision's resnext101_32x8d
    (
        "cifar_resnet29",
        ["resnext:8,64"],
        {"stage_depths": [3, 3, 3], "width": 64, **WRN},
        34.4,
    ),  # arXiv 1611.05431, Table 7
    ("resnet50", ["squeeze_excitation"], {}, 28_088_024),  # timm's seresnet50
    ("resnet50", ["group_norm"], {}, 25_557_032),  # as batch normalization's
    ("resnet50", ["resnet_d"], {}, 25_576_264),  # timm's resnet50d
    (
        "resnet50",
        ["stochastic_depth", "blur_shortcut", "zero_last_scale"],
        {},
        25_557_032,
    ),  # which have no parameters
    (
        "resnet50",
        ["skip_init"],
        {},
        25_557_032 - 26_560 + 16,
    ),  # a scale fewer for each of 26,560 channels, one for each block
]


SLOW = ("cifar_resnet110", "cifar_resnet164", "resnet101")


@pytest.mark.parametrize(
    ("name", "variants", "options", "count"),
    [
        pytest.param(
            *case, id=f"{case[0]} {' '.join(case[1])}", marks=[pytest.mark.slow] if case[0] in SLOW else []
        )
        for case in PUBLISHED
    ],
)
def test_the_number_of_parameters_is_the_published_one(name, variants, options, count) -> None:
    model = create_model(name, variants=variants, **options)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    found = sum(array.size for array in jax.tree.leaves(params))
    assert found == count if isinstance(count, int) else round(found / 1e6, 1) == count


@pytest.mark.parametrize("variant", ["squeeze_excitation:4", "preactivation"])
def test_one_variant_may_be_given_as_text(variant: str) -> None:
    shapes = [
        jax.eval_shape(
            create_model("cifar_resnet8", variants=given).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3))
        )
        for given in (variant, (variant,), ())
    ]
    assert shapes[0] == shapes[1]
    assert shapes[0] != shapes[2]


def test_every_variant_is_counted_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert {spec.partition(":")[0] for _, specs, _, _ in PUBLISHED for spec in specs} == set(VARIANTS)
    assert cli.main(["list", "--variants"]) == 0
    said = capsys.readouterr().out
    assert all(name in said and variant.paper in said for name, variant in VARIANTS.items())


def test_multiply_adds_of_grouped_convolutions() -> None:
    """ResNeXt-50 has 4.2e9 at 224 pixels (arXiv 1611.05431, Table 1); a grouped layer by hand."""
    summary = summarize(create_model("resnet50", variants=["resnext"]), 224)
    assert summary.macs == pytest.approx(4.2e9, rel=0.02)
    (row,) = (row for row in summary.rows if row.path == "stage1/block1/conv2")
    assert (row.params, row.macs) == (9 * 4 * 128, 56 * 56 * 9 * 4 * 128)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "cifar_resnet8",
            {"variants": ["preactivatoin"]},
            "unknown variant 'preactivatoin'; variants are preactivation, wide",
        ),
        (
            "cifar_resnet8",
            {"variants": ["resnext"]},
            "variant resnext does not fit cifar_resnet8: it is for bottleneck blocks",
        ),
        (
            "cifar_resnet8",
            {"variants": ["stochastic_depth:2"]},
            "survival is 2.0; it must be above 0 and up to 1",
        ),
        ("cifar_resnet8", {"variants": ["wide:0"]}, "factor is 0"),
        ("cifar_resnet8", {"variants": ["wide:a"]}, "'a' is no int; wide takes factor"),
        (
            "cifar_resnet8",
            {"variants": ["zero_last_scale:1"]},
            "it has 1 arguments; zero_last_scale takes none",
        ),
        (
            "cifar_resnet8",
            {"variants": ["preactivation", "zero_last_scale"]},
            "blocks that end with a normalization",
        ),
        ("cifar_resnet8", {"variants": ["zero_last_scale", "preactivation"]}, "leave out zero_last_scale"),
        ("cifar_resnet8", {"variants": ["preactivation", "resnet_d"]}, "so did another variant"),
        ("vgg16", {"variants": ["wide"]}, "vgg16 has no option variants"),
    ],
)
def test_what_does_not_fit_is_said(name, options, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ModelError, match=message):
        create_model(name, **options)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("side", "stride"), [(7, 1), (8, 2)])
def test_a_grouped_convolution_is_one_of_each_group(side: int, stride: int) -> None:
    random = np.random.RandomState(0)
    x, kernel = (
        jnp.asarray(random.standard_normal((2, side, side, 6))),
        jnp.asarray(random.standard_normal((3, 3, 2, 12))),
    )

    def apart(x, kernel):  # type: ignore[no-untyped-def]
        cut = zip(jnp.split(x, 3, -1), jnp.split(kernel, 3, -1), strict=True)
        return jnp.concatenate([convolve(part, filters, stride) for part, filters in cut], -1)

    expected, expected_pull = jax.vjp(apart, x, kernel)
    found, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, stride, 3), x, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    gradient = jnp.asarray(random.standard_normal(found.shape))
    for one, other in zip(pull(gradient), expected_pull(gradient), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_groups_that_do_not_divide_are_named() -> None:
    model = create_model("cifar_resnet11", stage_depths=[1, 1, 1], width=8, variants=["resnext:3,21"])
    with pytest.raises(ModelError, match="from 7 to 7 channels cannot be cut into 3 groups"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.usefixtures("x64")
def test_group_normalization_and_standardized_weights() -> None:
    x = np.random.RandomState(0).standard_normal((2, 3, 3, 8)) * 3 + 1
    found = GroupNorm(2, dtype=jnp.float64).init_with_output(jax.random.key(0), jnp.asarray(x))[0]
    for image in range(2):
        for group in (slice(0, 4), slice(4, 8)):
            part = x[image, :, :, group]
            np.testing.assert_allclose(
                found[image, :, :, group], (part - part.mean()) / np.sqrt(part.var() + 1e-5), atol=1e-10
            )
    layer = Conv(5, (3, 3), dtype=jnp.float64, transform=standardize_filters)
    out, variables = layer.init_with_output(jax.random.key(0), jnp.asarray(x))
    kernel = np.asarray(variables["params"]["kernel"])
    standard = (kernel - kernel.mean((0, 1, 2))) / np.sqrt(kernel.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(out, convolve(jnp.asarray(x), jnp.asarray(standard), 1), atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_pools_of_shortcuts() -> None:
    x = np.random.RandomState(0).standard_normal((1, 5, 5, 1))
    means = average_pool(jnp.asarray(x), 2)[0, :, :, 0]
    windows = [[x[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0].mean() for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(means, windows, atol=1e-12)
    blurred = blur_pool(jnp.asarray(x), 2)[0, :, :, 0]
    around, filters = np.pad(x[0, :, :, 0], 1, mode="reflect"), np.outer([1, 2, 1], [1, 2, 1]) / 16
    windows = [
        [(around[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * filters).sum() for j in range(3)] for i in range(3)
    ]
    np.testing.assert_allclose(blurred, windows, atol=1e-12)


@pytest.mark.parametrize("share", [0.75, 0.5])
def test_examples_survive_by_themselves(share: float) -> None:
    y = jnp.ones((4000, 2, 2, 3))
    out = np.asarray(keep_at_random(y, share=jnp.asarray(share), key=jax.random.key(0), axis_name=None))
    alive = out[:, 0, 0, 0]
    assert set(np.unique(out)) == {0.0, 1.0}
    assert (out == alive[:, None, None, None]).all()
    assert abs(alive.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(y))
    assert keep_at_random(y, share=jnp.asarray(share), key=None, axis_name=None)[0, 0, 0, 0] == share


def test_blocks_survive_less_with_depth_and_in_training_need_a_key() -> None:
    model = create_model("cifar_resnet14", stage_depths=(1, 2, 3), variants=["stochastic_depth:0.4"])
    halved = partial(lambda residual, **_: residual, residual=lambda y: y / 2)
    for before, number, depth in ((0, 1, 1 / 6), (1, 2, 3 / 6), (3, jnp.asarray(3), 6 / 6)):
        block = model.vary(halved, net=model, before=before, train=False)(number)
        np.testing.assert_allclose(block(jnp.ones((1, 1, 1, 1))), (1 - 0.6 * depth) / 2, rtol=1e-6)
    images = jnp.zeros((2, 8, 8, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(ModelError, match=r"give apply rngs=\{'examples': key\}"):
        jax.eval_shape(partial(model.apply, train=True, mutable=["batch_stats"]), variables, images)


@pytest.mark.parametrize("variant", ["zero_last_scale", "skip_init"])
def test_a_net_begins_as_its_shortcuts(variant: str) -> None:
    images = jnp.asarray(np.random.RandomState(0).standard_normal((2, 8, 8, 3)), jnp.float32)
    model = create_model("cifar_resnet8", variants=[variant, "squeeze_excitation"])
    variables = model.lazy_init(jax.random.key(0), jax.ShapeDtypeStruct(images.shape, images.dtype))
    maps = jax.jit(partial(model.apply, method="endpoints"))(variables, images)
    np.testing.assert_array_equal(maps["stage1"], maps["stem"])
    np.testing.assert_array_equal(maps["stage3"][..., :16], maps["stem"][:, ::4, ::4])


class Gate(nn.Module):
    @nn.compact
    def __call__(self, y: jax.Array) -> jax.Array:
        return squeeze_and_excitation(y, reduction=4)


@pytest.mark.usefixtures("x64")
def test_a_gate_is_computed_from_the_means_of_channels() -> None:
    y = np.random.RandomState(0).standard_normal((2, 3, 3, 8))
    variables = randomised(jax.eval_shape(Gate().init, jax.random.key(0), jnp.asarray(y)), seed=1)
    squeeze, excite = variables["params"]["squeeze"], variables["params"]["excite"]
    assert squeeze["kernel"].shape == (8, 2)
    hidden = relu(y.mean((1, 2)) @ squeeze["kernel"] + squeeze["bias"])
    gate = 1 / (1 + np.exp(-(hidden @ excite["kernel"] + excite["bias"])))
    np.testing.assert_allclose(Gate().apply(variables, jnp.asarray(y)), y * gate[:, None, None], atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kind", "stride"), [("basic", 1), ("basic", 2), ("bottleneck", 1), ("bottleneck", 2)]
)
def test_a_preactivation_block(kind: str, stride: int) -> None:
    x = np.random.RandomState(0).standard_normal((2, 6, 6, 8))
    block = {"basic": PreactivationBlock, "bottleneck": PreactivationBottleneckBlock}[kind]
    filters = 8 * stride // block.expansion
    module = block(
        filters=filters,
        stride=stride,
        conv=partial(Conv, dtype=jnp.float64),
        norm=partial(BatchNorm, use_running_average=True, dtype=jnp.float64),
        activation=nn.relu,
        shortcut=SHORTCUTS["B"],
    )
    variables = randomised(jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(x)), seed=1)
    params, statistics = variables["params"], variables["batch_stats"]
    assert "projection_norm" not in params
    y = x
    for number in range(1, block.convolutions + 1):
        active = relu(normalization(y, params[f"norm{number}"], statistics[f"norm{number}"]))
        first = active if number == 1 else first  # noqa: F821 (set by the first)
        y = convolution(active, params[f"conv{number}"]["kernel"], stride if number == 1 else 1)
    around = x if stride == 1 else convolution(first, params["projection"]["kernel"], stride)
    np.testing.assert_allclose(module.apply(variables, jnp.asarray(x)), y + around, atol=1e-10)
