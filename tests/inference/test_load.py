"""What a net expects of pictures, and what its classes are called, follow from how it was trained."""

from pathlib import Path

import numpy as np
import pytest

from resnet_jax.inference import InferenceError, load_trained
from resnet_jax.interop import export
from tests.data.photographs import CLASSES, write_folder
from tests.interop import workdirs

MODEL = {"name": "cifar_resnet8", "num_classes": 3}
VGG = {"name": "vgg8", "stage_depths": [1, 1, 1, 1, 1], "width": 2, "hidden": 4, "num_classes": 3}
SEEN = [
    ("the mean per pixel", MODEL, {"mean": workdirs.pixel_mean(24), "data__source": "cifar10"}, (24, 24)),
    ("images of any size", MODEL, {"data__image_size": 48, "data__test_scale": 60}, (60, 48)),
    (
        "images of any size, mean per pixel",
        MODEL,
        {"mean": workdirs.pixel_mean(48), "data__image_size": 48},
        (256, 48),
    ),
    ("the digits", MODEL | {"num_classes": 10}, {"data__source": "digits"}, (16, 16)),
    ("synthetic images", MODEL, {}, (40, 40)),
    ("a set of the net's own size", MODEL, {"data__source": "cifar10"}, (32, 32)),
    ("VGG's first layer", VGG, {"data__source": "cifar10", "side": 96}, (96, 96)),
    ("the section inference", MODEL, {"inference__crop": 20, "inference__resize": 30}, (30, 20)),
]


@pytest.mark.parametrize(
    ("model", "fields", "expected"), [rest for _, *rest in SEEN], ids=[name for name, *_ in SEEN]
)
def test_sizes_are_those_that_evaluation_saw(
    model: dict, fields: dict, expected: tuple[int, int], tmp_path: Path
) -> None:
    preprocessing = load_trained(
        workdirs.write(tmp_path / "run", model, **{"side": 40, **fields})
    ).preprocessing
    assert (preprocessing.resize, preprocessing.crop) == expected


NAMES = [
    ({"data__source": "digits", "data__labels": (7, 0, 3)}, ("7", "0", "3")),
    ({"data__source": "synthetic", "data__synthetic_classes": 3}, ("class 0", "class 1", "class 2")),
    ({"data__source": "digits", "inference__class_names": ("a", "b", "c")}, ("a", "b", "c")),
    ({"data__source": "digits"}, None),
    ({"data__source": ""}, None),
    ({"data__source": "/gone"}, None),
    ({"data__source": "no_such_set"}, None),
]


@pytest.mark.parametrize(("fields", "expected"), NAMES)
def test_names_of_classes_are_those_of_the_data_or_it_is_said(
    fields: dict, expected: tuple | None, tmp_path: Path
) -> None:
    trained = load_trained(workdirs.write(tmp_path / "run", MODEL, side=8, **fields))
    assert trained.class_names == expected
    assert [("stand for" in note) for note in trained.notes] == ([] if expected else [True])


def test_names_of_a_folder_are_those_of_its_classes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photographs", train=1, val=1)
    fields = {"data__source": str(root), "data__test_split": "val", "data__image_size": 32}
    assert load_trained(workdirs.write(tmp_path / "run", MODEL, side=32, **fields)).class_names == CLASSES


def test_weights_are_float32_whatever_they_were(tmp_path: Path) -> None:
    trained = load_trained(workdirs.write(tmp_path / "run", MODEL | {"dtype": "bfloat16"}, side=8))
    assert trained.model.dtype == np.float32
    assert trained.model_arguments["dtype"] == "float32"


def test_images_that_are_not_square_are_refused(tmp_path: Path) -> None:
    mean = np.zeros((8, 12, 3), np.float32)
    workdir = workdirs.write(tmp_path / "run", MODEL, side=8, mean=mean)
    with pytest.raises(InferenceError, match="12×8 pixels; it must be square"):
        export(workdir, tmp_path / "net.safetensors")
