"""Sets in TFDS's format, without a download.

Digits at 32×32 in place of CIFAR-10, and photographs of several sizes.
"""

import io
from collections.abc import Iterator
from typing import Any, ClassVar

import cv2
import tensorflow_datasets as tfds

from resnet_jax.data.tfds_sets import load_digits
from tests.data.photographs import CLASSES, jpeg, photograph

TRAIN, TEST = 640, 100


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Has the name, version, features and splits of TFDS's own builder, which then reads what this one
    wrote."""

    name = "cifar10"  # Not registered: a test before this one may have loaded TFDS's own.
    VERSION = tfds.core.Version("3.0.2")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {}

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {
            "train": self._generate_examples(0, TRAIN),
            "test": self._generate_examples(TRAIN, TRAIN + TEST),
        }

    def _generate_examples(self, start: int, stop: int) -> Iterator[tuple[str, dict[str, Any]]]:
        images, labels = load_digits()
        for index in range(start, stop):
            _, png = cv2.imencode(
                ".png", cv2.resize(images[index], (32, 32), interpolation=cv2.INTER_NEAREST)
            )
            key = f"{index:05d}"
            yield key, {"id": key, "image": io.BytesIO(png.tobytes()), "label": int(labels[index])}


def prepare(data_dir: str) -> None:
    """Writes the set where `tfds.builder("cifar10", data_dir=data_dir)` finds it."""
    tfds.disable_progress_bar()
    Cifar10(data_dir=data_dir, file_format="array_record").download_and_prepare()
    tfds.enable_progress_bar()


class Photographs(tfds.core.GeneratorBasedBuilder):
    """JPEGs of several sizes in three classes."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {}
    NUMBERS: ClassVar[dict[str, range]] = {"train": range(8), "validation": range(8, 12)}

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        features = tfds.features.FeaturesDict(
            {"image": image, "label": tfds.features.ClassLabel(names=list(CLASSES))}
        )
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(numbers) for split, numbers in self.NUMBERS.items()}

    def _generate_examples(self, numbers: range) -> Iterator[tuple[str, dict[str, Any]]]:
        for label in range(len(CLASSES)):
            for number in numbers:
                yield (
                    f"{label}-{number}",
                    {"image": io.BytesIO(jpeg(photograph(label, number))), "label": label},
                )


def prepare_photographs(data_dir: str) -> None:
    """Writes 24 and 12 photographs where `tfds.builder("photographs", data_dir=data_dir)` finds them."""
    tfds.disable_progress_bar()
    Photographs(data_dir=data_dir, file_format="array_record").download_and_prepare()
    tfds.enable_progress_bar()
