"""Parameters and multiply-adds of the paper's nets, and summaries of nets written otherwise."""

import json

import flax.linen as nn
import jax
import pytest
from jax import lax

from resnet_jax.models import create_model, summarize

IMAGENET = {
    ("resnet18", "A"): (11_515_688, 1.795e9),
    ("resnet18", "B"): (11_689_512, None),
    ("resnet34", "A"): (21_623_848, 3.644e9),
    ("resnet34", "B"): (21_797_672, None),
    ("resnet34", "C"): (22_716_840, None),
    ("resnet50", "B"): (25_557_032, 3.858e9),
    ("resnet101", "B"): (44_549_160, 7.570e9),
    ("resnet152", "B"): (60_192_808, 11.282e9),
}
CIFAR = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}


@pytest.mark.parametrize(("name", "shortcut"), IMAGENET)
def test_imagenet_nets_have_the_parameters_and_multiply_adds_of_table_1(name, shortcut):
    params, macs = IMAGENET[name, shortcut]
    summary = summarize(create_model(name, shortcut=shortcut), 224)
    assert summary.params == params
    if macs:
        assert round(summary.macs / 1e9, 3) == macs / 1e9


@pytest.mark.parametrize(
    "depth", [pytest.param(depth, marks=pytest.mark.slow if depth > 110 else ()) for depth in CIFAR]
)
def test_cifar_nets_have_their_parameters_and_plain_nets_the_same(depth):
    residual = summarize(create_model(f"cifar_resnet{depth}"), 32)
    assert residual.params == CIFAR[depth]
    if depth <= 56:
        assert summarize(create_model(f"cifar_plain{depth}"), 32) == residual


def test_plain_nets_have_the_parameters_and_multiply_adds_of_residual_nets_with_identities():
    for depth in (18, 34):
        assert summarize(create_model(f"plain{depth}"), 224) == summarize(
            create_model(f"resnet{depth}", shortcut="A"), 224
        )


def test_stride_on_the_3x3_costs_multiply_adds_and_no_parameters():
    summary = summarize(create_model("resnet50", stride_on="3x3"), 224)
    assert summary.params == 25_557_032
    assert round(summary.macs / 1e9, 2) == 4.09


def test_vgg():
    """The paper's 15.3e9 for VGG-16 leave out its fully connected layers, its 19.6e9 for VGG-19 do not."""
    sixteen, nineteen = (summarize(create_model(name), 224) for name in ("vgg16", "vgg19"))
    assert round(sum(row.macs for row in sixteen.rows if row.kind == "Conv") / 1e9, 1) == 15.3
    assert round(nineteen.macs / 1e9, 1) == 19.6
    assert (
        sixteen.macs - sum(row.macs for row in sixteen.rows if row.kind == "Conv")
        == 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    )
    assert (sixteen.params, nineteen.params) == (138_357_544, 143_667_240)


def test_rows_are_the_layers_in_order():
    summary = summarize(create_model("resnet50"), 224)
    assert [row.path for row in summary.rows[:4]] == [
        "stem/conv",
        "stem/norm",
        "stage1/block1/conv1",
        "stage1/block1/norm1",
    ]
    stem, head = summary.rows[0], summary.rows[-1]
    assert (stem.kind, stem.output_shape, stem.params, stem.macs) == (
        "Conv",
        (112, 112, 64),
        9408,
        9408 * 112**2,
    )
    assert (head.path, head.output_shape, head.params, head.macs) == ("head", (1000,), 2_049_000, 2_048_000)
    shapes = {row.path: row.output_shape for row in summary.rows}
    assert shapes["stage2/block1/conv1"] == shapes["stage2/block1/conv2"] == (28, 28, 128)
    assert shapes["stage4/block3/norm3"] == (7, 7, 2048)
    assert sum(row.params for row in summary.rows) == summary.params
    assert sum(row.macs for row in summary.rows) == summary.macs


def test_json_and_table_say_the_same():
    summary = summarize(create_model("cifar_resnet8"), 32)
    document = json.loads(json.dumps(summary.to_json("cifar_resnet8")))
    assert document.keys() == {"name", "params", "macs", "layers"}
    assert (document["name"], document["params"], document["macs"]) == (
        "cifar_resnet8",
        summary.params,
        summary.macs,
    )
    assert document["layers"][0] == {
        "path": "stem/conv",
        "kind": "Conv",
        "output_shape": [32, 32, 16],
        "params": 432,
        "macs": 442368,
    }
    text = summary.to_table()
    assert all(row.path in text and f"{row.params:,}" in text for row in summary.rows)
    assert f"{summary.params:,}" in text
    assert f"{summary.macs:,}" in text


@jax.custom_vjp
def product(x, kernel):
    return x @ kernel


product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))


class Product(nn.Module):
    """A fully connected layer behind a jit and a custom derivative, with another branch for another
    platform."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("weights", nn.initializers.normal(), (x.shape[-1], x.shape[-1]))
        return lax.cond(x.sum() > 0, jax.jit(product), lambda x, kernel: (x @ kernel) @ kernel.T, x, kernel)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return Product(name="product")(x), None


class Unusual(nn.Module):
    """Two products unrolled, three scanned, one under remat, and a grouped convolution."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(8, (3, 3), feature_group_count=2, use_bias=False, name="grouped")(images[..., :2])
        x = Product(name="second")(Product(name="first")(x[:, 0, 0]))
        scanned = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = scanned(name="repeated")(x, None)
        return nn.remat(Product)(name="recomputed")(x)


def test_layers_are_counted_whatever_module_and_transformation_they_are_in():
    summary = summarize(Unusual(), 4)
    rows = {row.path: (row.params, row.macs) for row in summary.rows}
    assert rows == {
        "grouped": (72, 72 * 16),
        "first": (64, 128),
        "second": (64, 128),
        "repeated/product": (192, 384),
        "recomputed": (64, 128),
    }
