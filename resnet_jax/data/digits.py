"""Scikit-learn's handwritten digits as a TFDS set: 1,797 images in 10 classes that need no download."""

import io
from collections.abc import Iterator
from typing import ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds

from resnet_jax.data.choices import DIGITS_SIDE

TRAIN_EXAMPLES = 1437


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
            "train": self._generate_examples(images[:TRAIN_EXAMPLES], labels[:TRAIN_EXAMPLES]),
            "test": self._generate_examples(images[TRAIN_EXAMPLES:], labels[TRAIN_EXAMPLES:]),
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
    gray = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    scale = DIGITS_SIDE // 8
    images = gray.repeat(scale, axis=1).repeat(scale, axis=2)[..., None].repeat(3, axis=-1)
    return images[order], bunch.target[order]
