"""Protocols against slow references of their own.

Every view by itself through the net, averaged in NumPy in float64.
"""

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax import load_checkpoint
from resnet_jax.data.crops import fully_convolutional, scaled
from resnet_jax.data.prepare import prepare
from resnet_jax.data.source import ArraySource
from resnet_jax.evaluation.evaluate import concatenate_scores, evaluate_checkpoint, predictions
from resnet_jax.evaluation.protocols import Protocol, ProtocolError, SeenExamples, default_scales, look_of
from resnet_jax.evaluation.scoring import Scorer
from resnet_jax.parallel import create_mapping
from tests.data.photographs import CLASSES, photograph
from tests.interop import workdirs

IMAGENET_NET = {"name": "resnet10", "stage_depths": [1, 1, 1, 1], "width": 4, "num_classes": 3}
CIFAR_NET = {"name": "cifar_resnet8", "width": 4, "num_classes": 7}
VGG = {"name": "vgg8", "stage_depths": [1, 1, 1, 1, 1], "width": 2, "hidden": 4, "num_classes": 3}
SHORTER, CROP = 96, 64
SIZES = [(96, 96), (130, 96), (96, 150)]
"""Widths and heights of the images, whose shorter side is the scale.

What is seen of them is cut out, and nothing is scaled.
"""


def picture(label: int, number: int) -> np.ndarray:
    width, height = SIZES[(3 * label + number) % len(SIZES)]
    return np.ascontiguousarray(
        photograph(label, 3 * number)[:height, :width].repeat(2, 0).repeat(2, 1)[:height, :width]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate(CLASSES):
        (root / "val" / name).mkdir(parents=True)
        for number in range(4):
            PIL.Image.fromarray(picture(label, number)).save(root / "val" / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def workdir(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "run", folder, mean=workdirs.pixel_mean(CROP))


def write(path: Path, folder: Path, *, model=IMAGENET_NET, mean=workdirs.RGB_MEAN, **fields) -> Path:
    fields = {
        "data__image_size": CROP,
        "data__test_scale": SHORTER,
        "data__test_split": "val",
        "batch_size": 8,
    } | fields
    return workdirs.write(path, model, side=CROP, mean=mean, data__source=str(folder), **fields)


def pictures(folder: Path) -> list[np.ndarray]:
    return [
        np.asarray(PIL.Image.open(path))
        for name in CLASSES
        for path in sorted((folder / "val" / name).iterdir())
    ]


@functools.cache
def compiled(workdir: Path) -> Callable[[np.ndarray], Any]:
    """Returns the net, that gives logits and features of one image, by name."""
    model, variables = load_checkpoint(str(workdir))
    apply = jax.jit(partial(model.apply, method="endpoints"))
    return lambda image: apply(variables, image[None].astype(np.float32))


def logits_of(workdir: Path, views: list[np.ndarray]) -> np.ndarray:
    """Returns the logits of each view, computed by itself."""
    return np.concatenate([np.asarray(compiled(workdir)(view)["logits"], np.float64) for view in views])


def ten_crops(image: np.ndarray, size: int, mean: np.ndarray | float = 0.0) -> list[np.ndarray]:
    """Returns four corners and the center less a mean, as in training, and their mirror images."""
    bottom, right = image.shape[0] - size, image.shape[1] - size
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [image[top : top + size, left : left + size] - mean for top, left in places]
    return crops + [crop[:, ::-1] for crop in crops]


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_ten_crop_equals_ten_crops_one_by_one(average: str, folder: Path, workdir: Path) -> None:
    expected = []
    for image in pictures(folder):
        logits = logits_of(workdir, ten_crops(image, CROP, workdirs.pixel_mean(CROP)))
        averaged = (
            scipy.special.softmax(logits, -1).mean(0)
            if average == "softmax"
            else scipy.special.softmax(logits.mean(0))
        )
        expected.append(averaged)
    found = predictions(workdir, protocol=Protocol("ten-crop", average=average))
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(found.labels, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(found.numbers, np.arange(12))


def test_a_single_view_is_the_center_crop(folder: Path, workdir: Path) -> None:
    centers = [ten_crops(image, CROP, workdirs.pixel_mean(CROP))[4] for image in pictures(folder)]
    expected = scipy.special.softmax(logits_of(workdir, centers), -1)
    np.testing.assert_allclose(predictions(workdir).probabilities, expected, atol=1e-5)


def dense_scores(workdir: Path, view: np.ndarray) -> np.ndarray:
    """Returns the class scores of a view.

    The last layer at every place of the last map by itself, averaged over places.
    """
    last = np.asarray(compiled(workdir)(view)["stage4"], np.float64)[0]
    head = load_checkpoint(str(workdir))[1]["params"]["head"]
    kernel, bias = np.asarray(head["kernel"], np.float64), np.asarray(head["bias"], np.float64)
    return np.mean([place @ kernel + bias for row in last for place in row], axis=0)


def test_fully_convolutional_scores_are_those_of_every_place_averaged(folder: Path, workdir: Path) -> None:
    """At the images' own scale a view is cut out of the middle of them, and at another it is what the reader
    gives."""
    protocol = Protocol("multi-scale", scales=(64, SHORTER), mirrored=True)
    found = predictions(workdir, protocol=protocol, batch_size=5)
    mean = workdirs.pixel_mean(CROP).mean((0, 1))
    seen = SeenExamples(found.source, look_of(protocol, found.source))
    expected = []
    for number, image in enumerate(pictures(folder)):
        height, width = (side // 32 * 32 for side in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        smaller = next(stack[0] for shape, stack in seen[number][2].items() if min(shape) == 64)
        views = [smaller - mean, image[top : top + height, left : left + width] - mean]
        scores = [dense_scores(workdir, view) for view in [*views, *(view[:, ::-1] for view in views)]]
        expected.append(scipy.special.softmax(scores, axis=1).mean(0))
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from((224, 256, 384, 480, 640)))
def test_what_is_seen_of_any_image_has_one_of_few_shapes(width: int, height: int, shorter: int) -> None:
    box, seen_height, seen_width = fully_convolutional(width, height, shorter=shorter)
    assert min(seen_height, seen_width) == shorter
    assert max(seen_height, seen_width) in {shorter + k * 32 * -(-shorter // 128) for k in range(5)}
    whole_width, whole_height = scaled(width, height, shorter)
    assert seen_width <= whole_width
    assert seen_height <= whole_height
    assert (seen_width > seen_height) <= (width > height)
    # The middle of the image, at its own proportions.
    np.testing.assert_allclose(
        [box.width * whole_width, box.height * whole_height], [seen_width * width, seen_height * height]
    )
    assert abs(box.left + box.width / 2 - width / 2) <= width / whole_width
    assert abs(box.top + box.height / 2 - height / 2) <= height / whole_height


def array_source(count: int, side: int = 16) -> ArraySource:
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, (count, side, side, 3), np.uint8)
    return ArraySource(images, rng.randint(0, 7, count).astype(np.int32), list("abcdefg"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mean = workdirs.pixel_mean(16)
    return workdirs.write(
        tmp_path_factory.mktemp("runs") / "small", CIFAR_NET, side=16, mean=mean, steps=(4, 5)
    )


def net_of(workdir: Path, devices: int, mapping: str = "auto") -> Scorer:
    model, variables = load_checkpoint(str(workdir))
    return Scorer(model, variables, workdirs.pixel_mean(16), create_mapping(mapping, jax.devices()[:devices]))


def test_crops_of_images_of_one_size_lose_the_mean_at_their_own_place(small: Path) -> None:
    source = array_source(5)
    found = concatenate_scores(net_of(small, 1).scores(source, Protocol("ten-crop"), batch_size=3))
    expected = []
    for image in source.images:
        logits = logits_of(small, ten_crops(image - workdirs.pixel_mean(16), 14))
        expected.append(scipy.special.softmax(logits, -1).mean(0))
    np.testing.assert_allclose(np.exp(found.log_probabilities), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("protocol", "devices", "mapping", "batch_size"),
    [
        ("single", 8, "pmap", 16),
        ("ten-crop", 1, "pmap", 4),
        ("ten-crop", 3, "shard_map", 37),
        ("multi-scale", 8, "shard_map", 16),
    ],
)
def test_neither_devices_nor_batches_nor_their_ragged_end_matter(
    protocol: str, devices: int, mapping: str, batch_size: int, small: Path
) -> None:
    source = array_source(37)
    chosen = Protocol(protocol, scales=(12, 16) if protocol == "multi-scale" else ())
    found = concatenate_scores(net_of(small, devices, mapping).scores(source, chosen, batch_size=batch_size))
    np.testing.assert_array_equal(found.numbers, np.arange(37))
    np.testing.assert_array_equal(found.labels, source.labels)
    one = [
        next(
            net_of(small, 1).scores(
                ArraySource(source.images[[n]], source.labels[[n]], "abcdefg"), chosen, batch_size=1
            )
        )
        for n in (0, 36)
    ]
    for number, alone in zip((0, 36), one, strict=True):
        np.testing.assert_allclose(
            found.log_probabilities[number], alone.log_probabilities[0], rtol=1e-5, atol=1e-5
        )


def test_scales_for_images_of_one_size_are_in_proportion() -> None:
    assert default_scales(array_source(1, side=32)) == (32, 37, 55, 69, 91)
    assert default_scales(array_source(1, side=224)) == (224, 256, 384, 480, 640)


def test_an_ensemble_of_one_is_the_net_and_of_two_the_mean_of_their_softmax(
    small: Path, tmp_path: Path
) -> None:
    other = workdirs.write(tmp_path / "other", CIFAR_NET | {"width": 6}, side=16, steps=(4,))
    alone, second = predictions(small, step=4), predictions(other, step=4)
    np.testing.assert_array_equal(predictions([small], step=4).log_probabilities, alone.log_probabilities)
    both = predictions([small, other], step=4)
    np.testing.assert_allclose(
        both.probabilities, (alone.probabilities + second.probabilities) / 2, atol=1e-6
    )
    figures = evaluate_checkpoint([small, other], step=4)
    assert figures["step"] == [4, 4]
    assert both.counts.results()["loss"] == pytest.approx(figures["loss"], rel=1e-6)


def test_stored_pixels_are_seen_as_files_are(folder: Path, workdir: Path, tmp_path: Path) -> None:
    prepare(str(folder), str(tmp_path / "prepared"), raw_share=1.0)
    expected = predictions(workdir, protocol="ten-crop")
    found = predictions(workdir, protocol="ten-crop", source=str(tmp_path / "prepared"))
    np.testing.assert_array_equal(np.sort(found.labels), np.sort(expected.labels))
    rows = (
        found.log_probabilities[np.lexsort(found.log_probabilities.T)],
        expected.log_probabilities[np.lexsort(expected.log_probabilities.T)],
    )
    np.testing.assert_allclose(*rows, rtol=1e-5, atol=1e-5)


def test_images_that_are_skipped_do_not_count(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for label, name in enumerate(CLASSES):
        (root / "val" / name).mkdir(parents=True)
        PIL.Image.fromarray(picture(label, 0)).save(root / "val" / name / "0.png")
    (root / "val" / CLASSES[1] / "0.png").write_bytes(b"no picture")
    found = predictions(write(tmp_path / "run", root, data__corrupt="skip"), protocol="ten-crop")
    np.testing.assert_array_equal(found.numbers, [0, 2])
    np.testing.assert_array_equal(found.labels, [0, 2])
    assert found.counts.results()["examples"] == 2


def test_a_net_of_one_size_of_images_takes_no_other(folder: Path, tmp_path: Path) -> None:
    workdir = write(tmp_path / "run", folder, model=VGG)
    assert evaluate_checkpoint(workdir, protocol="ten-crop")["examples"] == 12
    for protocol in (Protocol("multi-scale", scales=(96,)), Protocol("ten-crop", crop=32)):
        with pytest.raises(ProtocolError, match="vgg8 takes images of 64×64 pixels only"):
            evaluate_checkpoint(workdir, protocol=protocol)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "five-crop"}, "unknown protocol 'five-crop'; allowed are single, ten-crop, multi-scale"),
        ({"name": "ten-crop", "average": "votes"}, "of 'votes'; allowed are softmax, logits"),
        ({"scales": (224,)}, "scales are for the protocol multi-scale"),
        ({"name": "multi-scale", "crop": 32}, "a crop is for the protocol ten-crop"),
        ({"name": "multi-scale", "scales": (224, 224)}, "must be different numbers of pixels"),
        ({"name": "ten-crop", "crop": 4}, "the crop is 4; it must be"),
    ],
)
def test_options_that_do_not_hold_are_named(options: dict, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        Protocol(**options)


def test_a_crop_larger_than_the_images_is_refused(small: Path) -> None:
    with pytest.raises(ProtocolError, match="the crop is 20, and the shorter side of the images 16 pixels"):
        evaluate_checkpoint(small, protocol=Protocol("ten-crop", crop=20))
