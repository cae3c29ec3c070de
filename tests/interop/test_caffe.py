"""The authors' Caffe models: files after their layer names give what NumPy computes from the arrays, layer by
layer as Caffe."""

import re
from pathlib import Path

import numpy as np
import pytest

from resnet_jax import load_checkpoint, load_pretrained
from resnet_jax.cli import main
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.workdir import read_config
from tests.interop import caffe_reference, nets
from tests.interop.test_import import activations_of, assert_close

BGR = np.array([103.5, 116.3, 123.7])[:, None, None]


def caffe_name(name: str, depth: int) -> str:
    """Returns the authors' name of a block that is `layer3.0` in torchvision."""
    stage, number = map(int, re.findall(r"\d+", name))
    return [block for block, *_ in caffe_reference.blocks(depth) if block.startswith(str(stage + 1))][number]


@pytest.mark.parametrize(
    "depth", [50, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (101, 152))]
)
def test_every_block_gives_the_activations_computed_from_the_arrays(depth: int, tmp_path: Path) -> None:
    layers = caffe_reference.weights(depth)
    loaded = load_pretrained(
        caffe_reference.write(tmp_path / "net.caffemodel", layers), mean="123.7,116.3,103.5"
    )
    expected = caffe_reference.run(layers, nets.pixels(), BGR, depth)
    found = activations_of(*loaded, nets.pixels())
    assert len(found) == len(expected)
    for name, activations in found.items():
        assert_close(activations, expected[caffe_name(name, depth) if name != "logits" else name])


@pytest.mark.parametrize("side", [64, 65, 66, 67])
def test_the_pool_sees_the_pixels_that_caffes_sees(side: int) -> None:
    from resnet_jax.models.kernels.pooling import max_pool
    from resnet_jax.models.registry import POOLS

    x = np.random.default_rng(side).normal(size=(1, side, side, 2))
    ours = np.asarray(max_pool(x, 3, 2, POOLS["caffe"]))
    np.testing.assert_array_equal(
        ours, caffe_reference.maximum(x.transpose(0, 3, 1, 2), 3, 2).transpose(0, 2, 3, 1).astype(ours.dtype)
    )


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return caffe_reference.write(
        tmp_path_factory.mktemp("caffe") / "net.caffemodel", caffe_reference.weights(50, 1000)
    )


@pytest.mark.slow
def test_an_import_with_the_mean_image_gives_the_logits_at_224_pixels(tmp_path: Path) -> None:
    layers = caffe_reference.weights(50)
    caffe_reference.write(tmp_path / "ResNet-50-model.caffemodel", layers)
    mean = np.random.default_rng(0).uniform(80, 140, (3, 224, 224)).astype(np.float32)
    caffe_reference.write_mean(tmp_path / "ResNet_mean.binaryproto", mean)
    assert main(["import", str(tmp_path / "ResNet-50-model.caffemodel"), "--to", str(tmp_path / "run")]) == 0
    model, variables = load_checkpoint(str(tmp_path / "run"))
    images = nets.pixels(224, 1)
    expected = caffe_reference.run(layers, images, mean, 50)["logits"]
    normalised = images.astype(np.float32) - read_checkpoint(tmp_path / "run").arrays["image_mean"]
    assert_close(np.asarray(model.apply(variables, normalised)), expected)


def test_the_mean_image_beside_the_file_is_taken_red_first(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel").symlink_to(model_file)
    mean = np.random.default_rng(0).uniform(80, 140, (3, 224, 224)).astype(np.float32)
    caffe_reference.write_mean(tmp_path / "ResNet_mean.binaryproto", mean)
    assert main(["import", str(tmp_path / "net.caffemodel"), "--to", str(tmp_path / "run")]) == 0
    np.testing.assert_array_equal(
        read_checkpoint(tmp_path / "run").arrays["image_mean"], mean[::-1].transpose(1, 2, 0)
    )
    config = read_config(tmp_path / "run")
    assert (config.data.source, config.data.mean, config.model.stride_on) == (
        "imagenet2012",
        "pixel",
        "1x1",
    )
    assert (config.data.test_scale, config.data.image_size) == (256, 224)


def test_a_mean_that_is_not_there_is_asked_for(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(model_file), "--to", str(tmp_path / "run")]) == 2
    assert "give --mean FILE.binaryproto or three numbers" in capsys.readouterr().err
    assert main(["import", str(model_file), "--to", str(tmp_path / "run"), "--mean", "grey"]) == 2
    assert "--mean grey is neither" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def thin(layers: caffe_reference.Blobs) -> caffe_reference.Blobs:
    """Returns the same layers with one channel each, for what is wrong whatever the shapes are."""
    return {name: [blob[:1] for blob in blobs] for name, blobs in layers.items()}


def renamed(layers: caffe_reference.Blobs, old: str, new: str) -> caffe_reference.Blobs:
    return {new if name == old else name: blobs for name, blobs in layers.items()}


WRONG = [
    (lambda a: {k: v for k, v in a.items() if k != "scale3b_branch2b"}, "bn3b_branch2b.scale is missing"),
    (
        lambda a: {k: v for k, v in thin(a).items() if k != "bn_conv1"},
        "has a bias in conv1 and no normalization after it",
    ),
    (lambda a: {k: v for k, v in thin(a).items() if "5c_" not in k}, "has 3, 4, 6, 2 blocks per stage"),
    (lambda a: renamed(thin(a), "res2a_branch1", "inception_3a"), "has a layer 'inception_3a' with 1 arrays"),
    (
        lambda a: a | {"fc10": [a["fc10"][0][:, :-1], a["fc10"][1]]},
        "fc10.kernel is [10, 2047], expected [10, 2048]",
    ),
    (lambda a: {k: v for k, v in thin(a).items() if not k.startswith("fc")}, "0 last layers"),
    (lambda _: {}, "is a Caffe net without weights"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_does_not_fit_is_one_line_and_nothing_is_written(change, message, tmp_path, capsys) -> None:
    path = caffe_reference.write(tmp_path / "net.caffemodel", change(caffe_reference.weights(50)))
    assert main(["import", str(path), "--to", str(tmp_path / "run"), "--mean", "1,2,3"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert [found.name for found in tmp_path.iterdir()] == ["net.caffemodel"]
