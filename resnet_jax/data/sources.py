"""Where examples come from: random access to uint8 images and labels, by the example's number."""

import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from etils import epath
from jaxtyping import Int32, UInt8

from resnet_jax.data.choices import CENTRE, ERROR, RESIZED, SCALE
from resnet_jax.data.encoded import DecodedSource, Examples
from resnet_jax.data.encoded import Indices as Indices
from resnet_jax.data.errors import DataError as DataError
from resnet_jax.data.folder import open_folder
from resnet_jax.data.prepared import is_prepared, open_prepared
from resnet_jax.data.views import CentreCrop, ResizedCrop, ScaleCrop, View

DIGITS, SYNTHETIC = "digits", "synthetic"


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


@dataclasses.dataclass(frozen=True)
class Reading:
    """How encoded images are seen.

    Attributes:
        view: In evaluation.
        random_view: In training; None is the same.
        corrupt: What becomes of one that cannot be decoded: "error" or "skip".
    """

    view: View
    random_view: View | None = None
    corrupt: str = ERROR

    @classmethod
    def named(
        cls,
        crop: str,
        *,
        size: int,
        scales: tuple[int, int],
        areas: tuple[float, float],
        test_scale: int,
        corrupt: str = ERROR,
    ) -> "Reading":
        """Returns the reading that a config describes.

        Args:
            crop: Of training images: "scale", "resized" or "centre".
            size: Of all crops.
            scales: The range of the shorter side, for "scale".
            areas: The range of the share of the area, for "resized".
            test_scale: The shorter side in evaluation.
            corrupt: "error" or "skip".
        """
        centre = CentreCrop(size, test_scale)
        views: dict[str, View] = {
            SCALE: ScaleCrop(size, *scales),
            RESIZED: ResizedCrop(size, areas),
            CENTRE: centre,
        }
        return cls(centre, views[crop], corrupt)

    def of(self, examples: Examples) -> DecodedSource:
        """Returns the examples as seen this way."""
        return DecodedSource(examples, self.view, self.random_view, self.corrupt)


def open_source(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    synthetic: SyntheticSource | None = None,
    reading: Reading | None = None,
) -> Source:
    """Opens a split, and prepares the set first where that is needed.

    Args:
        name: "digits", the embedded set; "synthetic"; a folder or URL that holds an image folder (SPLIT/CLASS/NAME.jpg) or what
            `resnet-jax prepare` wrote; or the name of a set of TFDS with the features `image` and `label`.
        split: A folder's name, or in TFDS's notation, for example "train" or "train[:45000]".
        data_dir: Where TFDS keeps its sets; None is the environment's TFDS_DATA_DIR, or ~/tensorflow_datasets.
        synthetic: What to return for the name "synthetic".
        reading: How images of any size are seen; None reads a TFDS set whose images are of one size into memory.

    Raises:
        DataError: There is no such set or split, or it cannot be prepared; the message says which command mends it.
    """
    if name == SYNTHETIC:
        if synthetic is None:
            raise DataError("a synthetic source needs its number of examples, image size and classes")
        return synthetic
    path = is_path(name)
    if path and reading is None:
        raise DataError(
            f"the images of {name} are of any size: set --config.data.image_size, for example to 224"
        )
    if reading is None:
        from resnet_jax.data.tfds_sets import read_whole

        return read_whole(name, split, data_dir)
    return reading.of(open_examples(name, split, data_dir=data_dir))


def open_examples(name: str, split: str, *, data_dir: str | None = None) -> Examples:
    """Opens a split of encoded images; see `open_source` for the arguments and what is raised."""
    if not is_path(name):
        from resnet_jax.data.tfds_sets import (
            open_examples as open_tfds,
        )  # Here: other sources need not wait for TFDS.

        return open_tfds(name, split, data_dir)
    root = os.path.expanduser(name)
    if not epath.Path(root).is_dir():
        raise DataError(
            f"there is no folder {name}; config.data.source is one with images or what `resnet-jax prepare` wrote"
        )
    return open_prepared(root, split) if is_prepared(root) else open_folder(root, split)


def is_path(name: str) -> bool:
    """Tells whether the name of a source is that of a folder: a URL, a path by its form, or a folder that is there.

    A bare word that names a set of TFDS means that set, also where a folder of this name is there; it is said once.
    """
    if name in (DIGITS, SYNTHETIC):
        return False
    if "://" in name or name.startswith(("/", ".", "~")):
        return True
    return os.path.isdir(name) and not _is_tfds_too(name)


@functools.cache
def _is_tfds_too(name: str) -> bool:
    import tensorflow_datasets as tfds  # Here: other sources need not wait for TFDS.

    if name not in tfds.list_builders(with_community_datasets=False):
        return False
    print(
        f"resnet-jax: {name} is taken for the set of TFDS; the folder of this name is ./{name}",
        file=sys.stderr,
    )
    return True


def check_classes(train: Source | Examples, test: Source | Examples) -> None:
    """Checks that two splits have the same classes, so that a label means the same in both.

    Raises:
        DataError: Names classes that one of them lacks.
    """
    first, second = list(train.class_names), list(test.class_names)
    if first != second:
        only = [
            f"{names[0]!r} is only in {where}"
            for where, names in (
                ("the training split", sorted(set(first) - set(second))),
                ("the test split", sorted(set(second) - set(first))),
            )
            if names
        ]
        raise DataError(
            f"the training split has {len(first)} classes and the test split {len(second)}; they must be the same, in order"
            + (f": {', '.join(only)}" if only else "")
        )
