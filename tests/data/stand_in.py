"""A set in CIFAR-10's TFDS format: 640 and 100 digits at 32×32, so that what reads CIFAR is tested without a download."""

import io
from collections.abc import Iterator
from typing import Any, ClassVar

import cv2
import tensorflow_datasets as tfds

from resnet_jax.data.digits import load_digits

TRAIN, TEST = 640, 100


class Cifar10(tfds.core.GeneratorBasedBuilder):
    """Has the name, version, features and splits of TFDS's own builder, which then reads what this one wrote."""

    name = "cifar10"
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
        return {"train": self._generate_examples(0, TRAIN), "test": self._generate_examples(TRAIN, TRAIN + TEST)}

    def _generate_examples(self, start: int, stop: int) -> Iterator[tuple[str, dict[str, Any]]]:
        images, labels = load_digits()
        for index in range(start, stop):
            _, png = cv2.imencode(".png", cv2.resize(images[index], (32, 32), interpolation=cv2.INTER_NEAREST))
            key = f"{index:05d}"
            yield key, {"id": key, "image": io.BytesIO(png.tobytes()), "label": int(labels[index])}


def prepare(data_dir: str) -> None:
    """Writes the set where `tfds.builder("cifar10", data_dir=data_dir)` finds it."""
    tfds.disable_progress_bar()
    Cifar10(data_dir=data_dir, file_format="array_record").download_and_prepare()
    tfds.enable_progress_bar()
