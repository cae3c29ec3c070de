"""A trained detector in use: boxes in pictures of any size."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import NoReturn

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict
from jaxtyping import Array, Float, UInt8

from resnet_jax.data.crops import Box
from resnet_jax.data.scale import crop
from resnet_jax.detection.detecting import ImageBatch, example_batch, make_detect
from resnet_jax.detection.detector import Detector, create_detector
from resnet_jax.detection.object_batches import LYING, bucket_of, bucket_shape, fit
from resnet_jax.detection.objects import Detections
from resnet_jax.files import JsonObject
from resnet_jax.inference.detected import Detected
from resnet_jax.inference.known_classes import known_class_names
from resnet_jax.inference.preprocessing import (
    InferenceError,
    Pictures,
    Preprocessing,
    list_pictures,
    read_pixels,
)
from resnet_jax.inference.trained import Guess, Trained
from resnet_jax.training.checkpoints import Checkpoint
from resnet_jax.training.config import from_json
from resnet_jax.training.state import split_variables

TOGETHER = 4
"""Pictures that the network sees at once; fewer if fewer are asked for."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedDetector(Trained):
    """A detector with its weights; see `Trained` for what `images` may be.

    Example:
        >>> detector = load("runs/faster_rcnn_scenes")
        >>> detector.detect("photograph.jpg")[0].names
        ('7', '3')
    """

    def detect(self, images: Pictures, *, threshold: float = 0.5) -> list[Detected]:
        """Returns the objects of every image whose score is the threshold or more, the likeliest first.

        Raises:
            InferenceError: An array is not uint8, or its shape is not that of images, or an image is too
                narrow.
            CorruptImageError: A file is no image, or not a whole one.
            OSError: A file cannot be read.
        """
        pictures = list_pictures(images)
        return list(self.detect_each(map(read_pixels, pictures), count=len(pictures), threshold=threshold))

    def detect_each(
        self, pixels: Iterable[UInt8[np.ndarray, "h w 3"]], *, count: int, threshold: float
    ) -> Iterable[Detected]:
        """Yields the objects of every image, in order.

        Args:
            pixels: The images, read one after the other.
            count: Number of images; no more than this many are computed at once.
            threshold: Least score.
        """
        waiting: list[UInt8[np.ndarray, "h w 3"]] = []
        together = max(1, min(TOGETHER, count))
        for one in pixels:
            if waiting and (
                len(waiting) == together or bucket_of(one.shape[:2]) != bucket_of(waiting[0].shape[:2])
            ):
                yield from self._detect_alike(waiting, together, threshold)
                waiting = []
            waiting.append(one)
        if waiting:
            yield from self._detect_alike(waiting, together, threshold)

    def forward_detections(self, variables: VariableDict, batch: ImageBatch) -> Detections:
        """Returns the detections of a batch of padded images; a pure function, to be jitted or exported."""
        return make_detect(self.detector)(variables, jnp.asarray(self.preprocessing.image_mean), batch)

    def exported_program(self) -> tuple[bytes, JsonObject]:
        """Returns the serialized detector of one lying image, and what goes into it and comes out."""
        profile = self.detector.profile
        shapes = example_batch(1, bucket_shape(profile, LYING))
        program = jax.jit(lambda batch: self.forward_detections(self.variables, batch)._asdict())
        exported = jax.export.export(program, platforms=("cpu", "cuda", "tpu"))(shapes)
        found = jax.tree.unflatten(exported.out_tree, exported.out_avals)
        described: JsonObject = {
            "input": {name: f"{one.dtype}{list(one.shape)}" for name, one in shapes.items()},
            "output": {name: f"{one.dtype}{list(one.shape)}" for name, one in found.items()},
            "size": "height and width of the image, top left in the padded one; zeros beyond",
            "scale": "network pixels per pixel of the original, vertically and horizontally",
            "shorter_side": profile.test_shorter_side,
            "longest_side": profile.longest_side,
        }
        return bytes(exported.serialize()), described

    @property
    def detector(self) -> Detector:
        """The network."""
        assert isinstance(self.model, Detector)
        return self.model

    @functools.cached_property
    def _detections(self) -> Callable[[dict[str, np.ndarray]], Detections]:
        placed = jax.device_put(self.variables)
        return functools.partial(jax.jit(self.forward_detections), placed)

    def _detect_alike(
        self, pixels: list[UInt8[np.ndarray, "h w 3"]], together: int, threshold: float
    ) -> Iterable[Detected]:
        """Yields the objects of images of one bucket; the batch is filled up to one size."""
        profile = self.detector.profile
        shape = bucket_shape(profile, bucket_of(pixels[0].shape[:2]))
        batch: dict[str, np.ndarray] = {
            "image": np.zeros((together, *shape, 3), np.uint8),
            "size": np.ones((together, 2), np.int32),
            "scale": np.ones((together, 2), np.float32),
        }
        for place, image in enumerate(pixels):
            height, width = fit(image.shape[:2], profile, profile.test_shorter_side)
            crop(image, Box(0, 0, image.shape[1], image.shape[0]), batch["image"][place, :height, :width])
            batch["size"][place] = height, width
            batch["scale"][place] = height / image.shape[0], width / image.shape[1]
        found = jax.tree.map(np.asarray, self._detections(batch))
        for place in range(len(pixels)):
            chosen = found.valid[place] & (found.score[place] >= threshold)
            labels = found.label[place][chosen].astype(int)
            names = self.class_names or tuple(map(str, range(self.detector.classes)))
            scale = batch["scale"][place].astype(np.float64)[[1, 0, 1, 0]]
            yield Detected(
                found.box[place][chosen].astype(np.float64) / scale,
                found.score[place][chosen].astype(np.float64),
                labels,
                tuple(names[label] for label in labels),
            )

    def _refuse(self) -> NoReturn:
        raise InferenceError(
            "this is a detector, which finds boxes: use detect(images), or `resnet-jax detect`, in place of "
            "predict"
        )

    def forward(self, variables: VariableDict, pixels: UInt8[Array, "n h w 3"]) -> Float[Array, "n classes"]:
        """Raises InferenceError: it is for classifiers."""
        del variables, pixels
        self._refuse()

    def preprocess(self, images: Pictures) -> Float[Array, "n h w 3"]:
        """Raises InferenceError: it is for classifiers."""
        del images
        self._refuse()

    def logits(self, images: Pictures) -> Float[np.ndarray, "n classes"]:
        """Raises InferenceError: it is for classifiers."""
        del images
        self._refuse()

    def predict(self, images: Pictures, top: int = 5) -> list[tuple[Guess, ...]]:
        """Raises InferenceError: it is for classifiers."""
        del images, top
        self._refuse()

    def features(self, images: Pictures) -> dict[str, Float[np.ndarray, "n ..."]]:
        """Raises InferenceError: it is for classifiers."""
        del images
        self._refuse()


def detector_from(checkpoint: Checkpoint) -> TrainedDetector:
    """Returns the detector of a checkpoint."""
    config = from_json(checkpoint.config)
    arguments = {**checkpoint.model, "dtype": "float32"}
    variables, mean = split_variables(checkpoint.arrays)
    model = create_detector(**arguments)
    names, notes = known_class_names(config, checkpoint.class_names, model.classes)
    profile = model.profile
    return TrainedDetector(
        model=model,
        variables=jax.tree.map(lambda array: np.asarray(array, np.float32), variables),
        config=config,
        class_names=names,
        preprocessing=Preprocessing(
            np.asarray(mean, np.float32), None, profile.test_shorter_side, profile.test_shorter_side
        ),
        model_arguments=arguments,
        step=checkpoint.step,
        notes=notes,
    )
