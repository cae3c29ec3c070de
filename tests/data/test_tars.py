"""ImageNet's official tars, in miniature: read in place, and prepared."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from resnet_jax import cli
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.prepare import open_splits
from tests.data.photographs import jpeg, photograph

CLASSES = ("n01440764", "n01443537", "n02119789")
IDS = (3, 1, 2)  # ImageNet's own numbers are not in the order of WordNet's.
TRUTH = [2, 0, 1, 1]  # Of the validation images, by our label.
DECODING = DecodeOptions("scale", size=64, scales=(80, 120), areas=(0.1, 1.0), test_scale=72)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def packed(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            add(tar, name, content)
    return buffer.getvalue()


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """The three archives with three classes of two images, and four for validation.

    Members are not in order.
    """
    root = tmp_path / "tars"
    root.mkdir()
    outer = {}
    for label in (1, 0, 2):
        name = CLASSES[label]
        outer[f"{name}.tar"] = packed(
            {f"{name}_{number}.JPEG": jpeg(photograph(label, number)) for number in (10, 2)}
        )
    (root / "ILSVRC2012_img_train.tar").write_bytes(packed(outer))
    images = {
        f"ILSVRC2012_val_{number + 1:08d}.JPEG": jpeg(photograph(TRUTH[number], 20 + number))
        for number in (1, 3, 0, 2)
    }
    (root / "ILSVRC2012_img_val.tar").write_bytes(packed(images))
    synsets = np.array(
        [[(IDS[label], name)] for label, name in enumerate(CLASSES)], [("ILSVRC2012_ID", "O"), ("WNID", "O")]
    )
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "\n".join(
            str(IDS[t]) for t in TRUTH
        ).encode(),
    }
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(packed(kit, "w:gz"))
    return root


def test_the_images_and_labels_are_those_of_the_archives(tars: Path) -> None:
    splits = open_splits(str(tars))
    train, validation = splits["train"], splits["validation"]
    assert list(train.class_names) == list(validation.class_names) == list(CLASSES)
    assert [train.read(index) for index in range(6)] == [
        (jpeg(photograph(c, n)), c) for c in range(3) for n in (10, 2)
    ]
    assert read_validation(tars) == [(jpeg(photograph(t, 20 + n)), t) for n, t in enumerate(TRUTH)]
    assert train.describe(5).endswith("ILSVRC2012_img_train.tar/n02119789_2.JPEG (example 5)")


def test_what_is_prepared_of_them_can_be_trained_on(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prepare", str(tars), str(tmp_path / "set"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == {"train": 6, "validation": 4}
    source = open_source(str(tmp_path / "set"), "validation", decoding=DECODING)
    assert source.read(range(4))[1].tolist() == TRUTH
    assert cli.main(["prepare", str(tars), str(tmp_path / "set")]) == 0  # Again: verified.
    assert "train 6, validation 4 images of 3 classes" in capsys.readouterr().out


def read_validation(tars: Path) -> list[tuple[bytes, int]]:
    validation = open_splits(str(tars))["validation"]
    return [validation.read(index) for index in range(len(validation))]


@pytest.mark.parametrize(
    ("missing", "cut", "message"),
    [
        (
            "ILSVRC2012_devkit_t12.tar.gz",
            0,
            "the labels of ILSVRC2012_img_val.tar are in ILSVRC2012_devkit_t12.tar.gz",
        ),
        ("", 3000, "damaged|cut short|holds"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tars: Path, missing: str, cut: int, message: str) -> None:
    if missing:
        (tars / missing).unlink()
    if cut:
        path = tars / "ILSVRC2012_img_val.tar"
        path.write_bytes(path.read_bytes()[: -cut - 10000])
    with pytest.raises(DataError, match=message):
        read_validation(tars)


def test_without_validation_there_is_the_training_split_alone(tars: Path) -> None:
    (tars / "ILSVRC2012_img_val.tar").unlink()
    assert list(open_splits(str(tars))) == ["train"]
