"""Where examples come from: random access to uint8 images and labels, by the example's number."""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import filelock
import numpy as np
from jaxtyping import Float, Int, Int32, UInt8

DIGITS, SYNTHETIC = "digits", "synthetic"
MEANS = ("pixel", "channel")


Indices = Sequence[int] | Int[np.ndarray, " n"]


class DataError(Exception):
    """Data that cannot be found, prepared or read; the message says what to do."""


class Source(Protocol):
    """A split of a data set, numbered from 0."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and 3 channels, RGB."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, by label."""

    def __len__(self) -> int: ...

    def read(self, indices: Indices) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, " n"]]:
        """Returns the images and labels of the examples with these numbers, in this order."""


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """A split that fits into memory, decoded once."""

    images: UInt8[np.ndarray, "n h w 3"]
    labels: Int32[np.ndarray, " n"]
    class_names: Sequence[str]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Indices) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, " n"]]:
        chosen = np.asarray(indices)
        return self.images[chosen], self.labels[chosen]


@dataclasses.dataclass(frozen=True)
class SyntheticSource:
    """Noise around a mean colour of the class: made from the example's number, so that no disk is needed.

    Attributes:
        examples: Number of them; example i has label i % classes.
        image_size: Height and width in pixels.
        classes: Number of classes.
        seed: Of the noise; give training and test splits different ones.
    """

    examples: int
    image_size: int
    classes: int
    seed: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def class_names(self) -> Sequence[str]:
        return [f"class {label}" for label in range(self.classes)]

    def __len__(self) -> int:
        return self.examples

    def read(self, indices: Indices) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, " n"]]:
        labels = np.asarray(indices) % self.classes
        colours = np.random.RandomState(0).randint(64, 192, (self.classes, 3))
        images = np.empty((len(labels), *self.image_shape), np.uint8)
        for image, index, label in zip(images, indices, labels, strict=True):
            noise = np.random.Generator(np.random.Philox(key=[self.seed, int(index)]))
            image[:] = colours[label] + noise.integers(-64, 64, self.image_shape)
        return images, labels.astype(np.int32)


def open_source(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    synthetic: SyntheticSource | None = None,
) -> Source:
    """Opens a split, and prepares the set first where that is needed.

    Args:
        name: "digits", the embedded set; "synthetic"; or the name of a set of TFDS with the features `image` and `label`, all
            images of one size (cifar10, cifar100, svhn_cropped, …).
        split: In TFDS's notation, for example "train" or "train[:45000]".
        data_dir: Where TFDS keeps its sets; None is the environment's TFDS_DATA_DIR, or ~/tensorflow_datasets.
        synthetic: What to return for the name "synthetic".

    Raises:
        DataError: There is no such set or split, or it cannot be prepared; the message says which command mends it.
    """
    if name == SYNTHETIC:
        if synthetic is None:
            raise DataError("a synthetic source needs its number of examples, image size and classes")
        return synthetic
    return _read_all(_prepared_builder(name, data_dir), split)


def image_mean(source: Source, kind: str) -> Float[np.ndarray, "..."]:
    """Returns the mean of a split's images in units of pixels: float32[H, W, 3] per "pixel", or float32[3] per "channel"."""
    total = np.zeros(source.image_shape, np.float64)
    for start in range(0, len(source), 1024):
        images, _ = source.read(range(start, min(start + 1024, len(source))))
        total += images.sum(0, dtype=np.float64)
    mean = total / len(source)
    return (mean if kind == "pixel" else mean.mean((0, 1))).astype(np.float32)


def _prepared_builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds  # Here: training from another source need not wait for it.

    from resnet_jax.data.digits import SklearnDigits

    create = SklearnDigits if name == DIGITS else functools.partial(tfds.builder, name)
    try:
        builder = create(data_dir=data_dir, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError:
        raise DataError(
            f"unknown data set {name!r}; allowed are {DIGITS}, {SYNTHETIC} and the names of TFDS, for example cifar10; "
            "the list is at https://www.tensorflow.org/datasets/catalog/overview"
        ) from None
    except (ValueError, OSError) as error:
        raise DataError(f"data set {name!r} cannot be opened in {data_dir}: {_first_line(error)}") from error
    if builder.info.splits:
        return builder
    if name != DIGITS and importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"{name} is not prepared in {builder.data_dir}, and preparing it needs TensorFlow; run "
            "`pip install 'resnet-jax[tfds-prepare]'` and the same command again, or set --config.run.data_dir to where it is"
        )
    try:
        with _lock(builder.data_dir), _silence() if name == DIGITS else contextlib.nullcontext():
            builder = create(data_dir=data_dir, file_format="array_record")
            if not builder.info.splits:
                builder.download_and_prepare()
    except Exception as error:  # TFDS, the network and the disk raise what they like, and all of it ends here.
        raise DataError(
            f"{name} could not be prepared in {builder.data_dir}: {_first_line(error)}; check the network and the disk, or prepare "
            "it on another machine and set --config.run.data_dir to a copy"
        ) from error
    return builder


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps TFDS quiet about a set that takes a second."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


@contextlib.contextmanager
def _lock(directory: Any) -> Iterator[None]:
    """Of several processes that need a set prepared, one prepares, and the others wait and find it done."""
    if "://" in os.fspath(directory):
        yield  # Object storage has no locks; TFDS's own rename keeps the set whole.
        return
    path = Path(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.parent / f".{path.name}.lock"):
        yield


def _read_all(builder: Any, split: str) -> ArraySource:
    import tensorflow_datasets as tfds

    try:
        source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        count = len(source)
    except (KeyError, ValueError, AssertionError) as error:
        raise DataError(
            f"{builder.name} has no split {split!r}: {_first_line(error)}; its splits are {', '.join(builder.info.splits)}"
        ) from error
    if not count:
        raise DataError(f"split {split!r} of {builder.name} is empty")
    images, labels = [], np.empty(count, np.int32)
    for index in range(count):
        record = source[index]
        images.append(_decode(record["image"], f"example {index} of {builder.name}, split {split}"))
        labels[index] = record["label"]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"{builder.name} has images of {len(shapes)} sizes; sets of one size are supported, for example cifar10")
    return ArraySource(np.stack(images), labels, builder.info.features["label"].names)


def _decode(encoded: bytes, what: str) -> UInt8[np.ndarray, "h w 3"]:
    import cv2

    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DataError(f"{what} is not an image that can be decoded; prepare the set again")
    return image


def _first_line(error: BaseException) -> str:
    text = str(error).strip().strip("'\"")
    return text.splitlines()[0][:300] if text else type(error).__name__
