"""TFDS sets by name: prepared once, and read as ArrayRecord without TensorFlow.

The embedded digits are one of them: scikit-learn's, 1,797 images in 10 classes that need no download.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import filelock
import numpy as np
import tensorflow_datasets as tfds

from resnet_jax.data.choices import DIGITS, DIGITS_SIDE, SYNTHETIC
from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.data.decode import decode
from resnet_jax.data.source import ArraySource

_DIGITS_TO_TRAIN = 1437


@dataclasses.dataclass(frozen=True)
class TfdsExamples:
    """A split of a set of TFDS, whose images stay encoded until they are asked for.

    Attributes:
        name: Name of the dataset.
        split: In TFDS's notation.
        data_source: Data source of TFDS; gives image bytes and labels by number.
        class_names: By label.
    """

    name: str
    split: str
    data_source: Sequence[dict[str, Any]]
    class_names: Sequence[str]
    fingerprint = None

    def __len__(self) -> int:
        return len(self.data_source)

    def read(self, index: int) -> tuple[bytes, int]:
        try:
            record = self.data_source[index]
        except (RuntimeError, IndexError, ValueError) as error:
            raise DataError(
                f"{self.describe(index)} cannot be read: the files are damaged; prepare the set again"
            ) from error
        return record["image"], int(record["label"])

    def expect(self, indices: Sequence[int]) -> None:
        """Does nothing: a disk is not waited for."""

    def label(self, index: int) -> int:
        return self.read(index)[1]

    def stamp(self, index: int) -> str:
        return self.describe(index)

    def describe(self, index: int) -> str:
        return f"example {index} of {self.name}, split {self.split}"


def open_tfds(name: str, split: str, data_dir: str | None) -> TfdsExamples:
    """Opens a split, and prepares the set first where that is needed.

    Raises:
        DataError: There is no such set or split, it cannot be prepared, or it is not one of images and
            labels.
    """
    builder = _prepared_builder(name, data_dir)
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not isinstance(features["label"], tfds.features.ClassLabel):
        raise DataError(
            f"{name} has the features {', '.join(features)}; sets with an image and a class label can be read"
        )
    return TfdsExamples(builder.name, split, _records(builder, split), features["label"].names)


def open_tfds_objects(name: str, split: str, data_dir: str | None) -> tuple[Sequence[Any], Sequence[str]]:
    """Opens a split of images with objects, `image` and `objects`; returns its records and its class names.

    Raises:
        DataError: As `open_tfds`, or it is not one of images with objects.
    """
    builder = _prepared_builder(name, data_dir)
    features = builder.info.features
    if not {"image", "objects"} <= set(features):
        raise DataError(
            f"{name} has the features {', '.join(features)}; a detector reads sets with an image and "
            "objects, "
            "such as voc/2007 and coco/2017"
        )
    return _records(builder, split), features["objects"]["label"].names


def _records(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[Any]:
    """Returns the records of a split, by number; images stay encoded."""
    try:
        records: Sequence[Any] = builder.as_data_source(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        count = len(records)
    except (KeyError, ValueError, AssertionError) as error:
        raise DataError(
            f"{builder.name} has no split {split!r}: {_first_line(error)}; its splits are "
            f"{', '.join(builder.info.splits)}"
        ) from error
    if not count:
        raise DataError(f"split {split!r} of {builder.name} is empty")
    return records


def read_whole(name: str, split: str, data_dir: str | None) -> ArraySource:
    """Reads a split whose images are of one size into memory.

    Raises:
        DataError: As `open_tfds`, or the images are of several sizes, or one cannot be decoded.
    """
    examples = open_tfds(name, split, data_dir)
    images: list[np.ndarray] = []
    labels = np.empty(len(examples), np.int32)
    for index in range(len(examples)):
        encoded, labels[index] = examples.read(index)
        try:
            images.append(decode(encoded).copy())
        except CorruptImageError as error:
            raise DataError(f"{examples.describe(index)}: {error}; prepare the set again") from error
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"{name} has images of several sizes: set --config.data.image_size, for example to 224"
            )
    return ArraySource(np.stack(images), labels, examples.class_names)


def is_tfds_prepared(name: str, data_dir: str | None) -> bool:
    """Tells whether a set can be read without preparing it first.

    Raises:
        DataError: There is no such set.
    """
    return bool(_create(name, data_dir).info.splits)


def _prepared_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    builder = _create(name, data_dir)
    if builder.info.splits:
        return builder
    if name != DIGITS and importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"{name} is not prepared in {builder.data_dir}, and preparing it needs TensorFlow; run "
            "`pip install 'resnet-jax[tfds-prepare]'` and the same command again, or set "
            "--config.run.data_dir to where it is"
        )
    try:
        with _lock(builder.data_dir), _silence() if name == DIGITS else contextlib.nullcontext():
            builder = _create(name, data_dir)
            if not builder.info.splits:
                builder.download_and_prepare()
    except Exception as error:  # TFDS, the network and the disk raise what they like; all of it ends here.
        raise DataError(
            f"{name} could not be prepared in {builder.data_dir}: {_first_line(error)}; check the network "
            "and the disk, or prepare "
            "it on another machine and set --config.run.data_dir to a copy"
        ) from error
    return builder


def _create(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    create = SklearnDigits if name == DIGITS else functools.partial(tfds.builder, name)
    try:
        return create(data_dir=data_dir, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError:
        raise DataError(
            f"unknown data set {name!r}; allowed are {DIGITS}, {SYNTHETIC}, a folder, and the names of "
            "TFDS, for example cifar10; "
            "the list is at https://www.tensorflow.org/datasets/catalog/overview"
        ) from None
    except (ValueError, OSError) as error:
        raise DataError(f"data set {name!r} cannot be opened in {data_dir}: {_first_line(error)}") from error


def tfds_class_names(name: str, data_dir: str | None) -> Sequence[str]:
    """Returns the names of a set's classes, whether it is prepared or not.

    Raises:
        DataError: There is no such set, or it is not one of classes.
    """
    try:
        return tfds.builder(name, data_dir=data_dir).info.features["label"].names
    except Exception as error:  # TFDS raises what it likes.
        raise DataError(f"TFDS does not tell those of {name!r}: {_first_line(error)}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _lock(directory: os.PathLike[str]) -> contextlib.AbstractContextManager[object]:
    """If several processes need a set prepared, one prepares it and the others wait."""
    if "://" in os.fspath(directory):
        return contextlib.nullcontext()  # Object storage has no locks; TFDS's own rename keeps the set whole.
    path = Path(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path.parent / f".{path.name}.lock")


def _first_line(error: BaseException) -> str:
    text = str(error).strip().strip("'\"")
    return text.splitlines()[0][:300] if text else type(error).__name__


class SklearnDigits(tfds.core.GeneratorBasedBuilder):
    """The digits at 16×16 in RGB, split into 1,437 and 360.

    Every pixel of the 8×8 originals is doubled in both directions. Prepared and read without TensorFlow: the
    generator hands over encoded PNG files, and the shards are ArrayRecord.
    """

    name = "sklearn_digits"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Scikit-learn's handwritten digits "
            "(a part of UCI's Optical Recognition of Handwritten Digits).",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(DIGITS_SIDE, DIGITS_SIDE, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[object]]:
        del dl_manager
        images, labels = load_digits()
        return {
            "train": self._generate_examples(images[:_DIGITS_TO_TRAIN], labels[:_DIGITS_TO_TRAIN]),
            "test": self._generate_examples(images[_DIGITS_TO_TRAIN:], labels[_DIGITS_TO_TRAIN:]),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, io.BytesIO | int]]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield (
                index,
                {"image": io.BytesIO(cv2.imencode(".png", image)[1].tobytes()), "label": int(label)},
            )


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns all images uint8[1797, 16, 16, 3] and labels int64[1797], training examples first."""
    import sklearn.datasets  # Here, since it takes a second to import and is needed once.

    bunch = sklearn.datasets.load_digits()
    # RandomState's stream is frozen by NumPy, so the split is the same everywhere and for ever.
    order = np.random.RandomState(0).permutation(len(bunch.target))
    gray = np.round(bunch.images[order] * (255 / 16)).astype(np.uint8)
    scale = DIGITS_SIDE // 8
    return (
        gray.repeat(scale, axis=1).repeat(scale, axis=2)[..., None].repeat(3, axis=-1),
        bunch.target[order],
    )
