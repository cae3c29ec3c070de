"""The maps of stem and stages: what they are, where the net ends, and what the documentation says of them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resnet_jax
from resnet_jax import create_model, feature_shapes, features, stack_blocks
from resnet_jax.models import FeatureShape, ModelError, ScannedStage
from tests.models.numpy_reference import convolution, maximum, normalization, randomised, relu

TABLE_1 = {
    "resnet18": {
        "stem": (4, 64),
        "stage1": (4, 64),
        "stage2": (8, 128),
        "stage3": (16, 256),
        "stage4": (32, 512),
    },
    "resnet50": {
        "stem": (4, 64),
        "stage1": (4, 256),
        "stage2": (8, 512),
        "stage3": (16, 1024),
        "stage4": (32, 2048),
    },
    "resnet152": {
        "stem": (4, 64),
        "stage1": (4, 256),
        "stage2": (8, 512),
        "stage3": (16, 1024),
        "stage4": (32, 2048),
    },
    "plain34": {
        "stem": (4, 64),
        "stage1": (4, 64),
        "stage2": (8, 128),
        "stage3": (16, 256),
        "stage4": (32, 512),
    },
    "cifar_resnet20": {"stem": (1, 16), "stage1": (1, 16), "stage2": (2, 32), "stage3": (4, 64)},
}
SLOW = ("resnet50", "resnet152")


def drawn(name: str, size: int, **options):  # type: ignore[no-untyped-def]
    model = create_model(name, num_classes=5, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    images = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    return model, jax.tree.map(np.float32, randomised(shapes, seed=0)), images


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TABLE_1]
)
def test_strides_and_channels_are_those_of_the_paper_and_of_the_docstring(name: str) -> None:
    shapes = feature_shapes(create_model(name))
    assert shapes.pop("pooled") == FeatureShape(0, list(TABLE_1[name].values())[-1][1])
    assert shapes == TABLE_1[name]
    rows = re.findall(r"\| `(\w+)` \|(.*)\|", features.__doc__ or "")
    column = {"cifar": (3, 4), "resne": (0, 2), "plain": (0, 1)}[name[:5] if name != "resnet18" else "plain"]
    for row, text in rows:
        stride, channels = (text.split("|")[index].strip() for index in column)
        if row != "pooled" and channels:
            assert shapes[row] == (int(stride), int(channels))


@pytest.mark.parametrize(
    ("name", "size", "options"), [("cifar_resnet8", 13, {}), ("resnet18", 65, {"width": 4})]
)
def test_maps_have_the_stated_sizes_and_end_in_the_logits(name: str, size: int, options: dict) -> None:
    model, variables, images = drawn(name, size, **options)
    found = jax.jit(lambda v, x: features(model, v, x))(variables, images)
    assert list(found) == list(feature_shapes(model))
    for key, (stride, channels) in feature_shapes(model).items():
        side = -(-size // stride) if stride else 0
        assert found[key].shape == ((2, side, side, channels) if stride else (2, channels))
    last = found[f"stage{len(found) - 2}"]
    np.testing.assert_allclose(found["pooled"], last.mean((1, 2)), rtol=1e-5, atol=1e-6)
    head = variables["params"]["head"]
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(found["pooled"] @ head["kernel"] + head["bias"], logits, rtol=1e-4, atol=1e-5)


def test_the_stem_is_what_numpy_computes_and_stages_are_shortcuts_where_branches_are_zero() -> None:
    """With the last scale and bias of every block zero, option A leaves the stem's map, subsampled, with zero
    channels behind."""
    model, variables, images = drawn("resnet18", 40, width=4, shortcut="A")
    for stage in range(1, 5):
        for block in variables["params"][f"stage{stage}"].values():
            block["norm2"] = jax.tree.map(np.zeros_like, block["norm2"])
    params, statistics = variables["params"]["stem"], variables["batch_stats"]["stem"]
    x = convolution(images.astype(np.float64), params["conv"]["kernel"], 2)
    stem = maximum(relu(normalization(x, params["norm"], statistics["norm"])), size=3, stride=2, padding=1)
    found = jax.jit(lambda v, x: features(model, v, x))(variables, images)
    np.testing.assert_allclose(found["stem"], stem, rtol=1e-4, atol=1e-4)
    for stage in range(1, 5):
        expected = stem[:, :: 2 ** (stage - 1), :: 2 ** (stage - 1)]
        np.testing.assert_allclose(found[f"stage{stage}"][..., :4], expected, rtol=1e-4, atol=1e-4)
        assert not np.any(found[f"stage{stage}"][..., 4:])


def test_every_stage_is_what_pytorch_computes() -> None:
    torch = pytest.importorskip("torch")
    from tests.models import torch_reference
    from tests.models.test_parity import drawn_variables, torch_arrays

    model = create_model("cifar_resnet20", num_classes=5)
    images = np.random.default_rng(1).normal(size=(2, 17, 17, 3)).astype(np.float32)
    variables = drawn_variables(jax.eval_shape(model.init, jax.random.key(0), images))
    net = torch_reference.create("cifar20", "A", 5).eval()
    arrays = torch_arrays(variables["params"]) | torch_arrays(variables["batch_stats"])
    net.load_state_dict(
        {name: torch.tensor(np.float32(array)) for name, array in arrays.items()}, strict=False
    )
    theirs: dict = {}
    for stage in (1, 2, 3):

        def hook(_, __, out, name=f"stage{stage}"):
            theirs[name] = out.numpy().transpose(0, 2, 3, 1)

        getattr(net, f"layer{stage}").register_forward_hook(hook)
    with torch.no_grad():
        net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    found = jax.jit(lambda v, x: features(model, v, x))(jax.tree.map(np.float32, variables), images)
    for name, expected in theirs.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-4 * np.abs(expected).max())


def test_a_feature_can_be_differentiated() -> None:
    model, variables, images = drawn("cifar_resnet8", 9)
    gradient = jax.jit(jax.grad(lambda x: features(model, variables, x)["stage2"].sum()))(images)
    assert gradient.shape == images.shape
    assert np.abs(gradient).max() > 0


def test_maps_are_in_the_dtype_of_the_net() -> None:
    model, variables, images = drawn("cifar_resnet8", 9, dtype="bfloat16")
    found = jax.eval_shape(lambda v, x: features(model, v, x), variables, images)
    assert {name: x.dtype.name for name, x in found.items() if name in ("stage3", "pooled")} == {
        "stage3": "bfloat16",
        "pooled": "float32",
    }


def test_vgg_has_no_features() -> None:
    with pytest.raises(ModelError, match="the model is a VGG"):
        features(create_model("vgg16"), {}, jnp.zeros((1, 32, 32, 3)))


def test_they_are_public() -> None:
    assert {"features", "feature_shapes"} <= set(resnet_jax.__all__)


@pytest.mark.slow
def test_scanned_nets_have_the_same_features() -> None:
    model = create_model("cifar_resnet20", dtype="float32")
    images = np.random.RandomState(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    unrolled, scanned = (
        features(model, variables, images),
        features(model.clone(stage=ScannedStage), stack_blocks(variables), images),
    )
    assert unrolled.keys() == scanned.keys()
    for name, array in unrolled.items():
        np.testing.assert_allclose(array, scanned[name], rtol=1e-5, atol=1e-5, err_msg=name)
