"""Batches of images with objects: a batch is a function of (seed, step), as in `resnet_jax.data.batches`.

Images are scaled by a profile and padded to its bucket, lying or standing. A batch has images of one bucket;
which one is a function of the step alone, and every image is visited equally often.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8

from resnet_jax.data.batches import HostBatch, draws, read_ahead
from resnet_jax.data.crops import Box
from resnet_jax.data.data_error import DataError
from resnet_jax.data.scale import crop
from resnet_jax.detection.object_source import Annotation, ObjectSource
from resnet_jax.detection.profiles import Profile
from resnet_jax.detection.proposal_file import Proposals

CELL = 16
"""Least side of a scaled image, in pixels: that of a cell of the map."""

LYING, STANDING = 0, 1
"""Buckets: the longer side is the width, or the height."""


def fit(size: tuple[int, int], profile: Profile, shorter: int) -> tuple[int, int]:
    """Returns the height and width that an image of this height and width is scaled to.

    Its shorter side becomes `shorter`, or less so that the longer one is at most the profile's and fits the
    bucket.

    Raises:
        DataError: Scaled, it is narrower than CELL.
    """
    short, long = min(size), max(size)
    factor = min(shorter / short, profile.longest_side / long)
    factor = min(factor, profile.bucket[0] / short, profile.bucket[1] / long)
    height, width = (round(side * factor) for side in size)
    if min(height, width) < CELL:
        raise DataError(
            f"an image of {size[1]}×{size[0]} pixels becomes one of {width}×{height}, narrower than a "
            "cell of the "
            f"map of {CELL} pixels; crop it, or leave it out"
        )
    return height, width


def check_size(size: tuple[int, int], profile: Profile) -> None:
    """Checks that an image of this height and width is wide enough to be scaled.

    Raises:
        DataError: It is not.
    """
    fit(size, profile, profile.test_shorter_side)


def bucket_of(size: tuple[int, int]) -> int:
    """Returns the bucket of an image of this height and width."""
    return STANDING if size[0] > size[1] else LYING


def bucket_shape(profile: Profile, bucket: int) -> tuple[int, int]:
    """Returns height and width of the images of a bucket."""
    return profile.bucket if bucket == LYING else (profile.bucket[1], profile.bucket[0])


@dataclasses.dataclass(frozen=True)
class Example:
    """An image in its bucket, and its objects in pixels of the network's image."""

    image: UInt8[np.ndarray, "H W 3"]
    size: tuple[int, int]
    scale: tuple[float, float]
    mirrored: bool
    annotation: Annotation

    def move(self, boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 4"]:
        """Returns boxes of the original image in pixels of the network's image."""
        scaled = boxes * np.array([self.scale[1], self.scale[0], self.scale[1], self.scale[0]])
        if not self.mirrored:
            return scaled
        width = self.size[1]
        return np.stack([width - scaled[:, 2], scaled[:, 1], width - scaled[:, 0], scaled[:, 3]], -1)


def read_example(
    source: ObjectSource, index: int, profile: Profile, *, shorter: int, mirrored: bool
) -> Example:
    """Returns an image scaled and padded, with its objects."""
    pixels, annotation = source.image(index), source.annotation(index)
    height, width = fit(pixels.shape[:2], profile, shorter)
    image = np.zeros((*bucket_shape(profile, bucket_of(pixels.shape[:2])), 3), np.uint8)
    if (height, width) == pixels.shape[:2]:
        image[:height, :width] = pixels
    else:
        scaled = np.empty((height, width, 3), np.uint8)
        crop(pixels, Box(0, 0, pixels.shape[1], pixels.shape[0]), scaled)
        image[:height, :width] = scaled
    scale = height / pixels.shape[0], width / pixels.shape[1]
    if mirrored:
        image[:height, :width] = image[:height, :width][:, ::-1].copy()
    example = Example(image, (height, width), scale, mirrored, annotation)
    return dataclasses.replace(example, annotation=annotation._replace(box=example.move(annotation.box)))


def read_images(source: ObjectSource, numbers: list[int], profile: Profile) -> HostBatch:
    """Returns `image`, `size` and `scale` of test images of a bucket, scaled by a profile."""
    examples = [
        read_example(source, number, profile, shorter=profile.test_shorter_side, mirrored=False)
        for number in numbers
    ]
    return {
        "image": np.stack([one.image for one in examples]),
        "size": np.array([one.size for one in examples], np.int32),
        "scale": np.array([one.scale for one in examples], np.float32),
    }


def gather(examples: list[Example], objects: int) -> HostBatch:
    """Returns the arrays of a batch of examples, with room for this many objects in each."""
    count = len(examples)
    batch = {
        "image": np.stack([one.image for one in examples]),
        "size": np.array([one.size for one in examples], np.int32),
        "scale": np.array([one.scale for one in examples], np.float32),
        "box": np.zeros((count, objects, 4), np.float32),
        "label": np.zeros((count, objects), np.int32),
        "valid": np.zeros((count, objects), bool),
        "ignored": np.zeros((count, objects), bool),
    }
    for place, one in enumerate(examples):
        of_image = one.annotation
        filled = slice(len(of_image.label))
        batch["box"][place, filled] = of_image.box
        batch["label"][place, filled] = of_image.label
        batch["valid"][place, filled] = True
        batch["ignored"][place, filled] = of_image.crowd | of_image.difficult
    return batch


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, bucket: int, count: int) -> np.ndarray:
    # NumPy keeps RandomState's stream: upgrades do not change the order.
    return np.random.RandomState([seed, epoch, bucket]).permutation(count)


@dataclasses.dataclass(frozen=True)
class ObjectTrainBatches:
    """Endless global batches; `batches[step]` needs no batch before it.

    Attributes:
        source: The training split.
        batch_size: Size of the global batch.
        seed: Seed of order, sizes and mirroring.
        share: This process's positions of the global batch.
        profile: Sizes and buckets.
        mirror: Mirror half of the images.
        objects: Objects of an image at most.
        proposals: Regions that the head is trained on, in place of the detector's own.
    """

    source: ObjectSource
    batch_size: int
    seed: int
    share: slice | np.ndarray
    profile: Profile
    mirror: bool
    objects: int
    proposals: Proposals | None = None

    @functools.cached_property
    def _buckets(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the images of each bucket."""
        found = np.array([bucket_of(self.source.size(index)) for index in range(len(self.source))])
        return np.flatnonzero(found == LYING), np.flatnonzero(found == STANDING)

    def examples_at(self, step: int) -> tuple[int, Int[np.ndarray, " b"]]:
        """Returns the bucket of a step, and the numbers of the examples of its global batch."""
        lying, total = len(self._buckets[LYING]), len(self.source)
        before = step * lying // total
        bucket = LYING if (step + 1) * lying // total > before else STANDING
        number = before if bucket == LYING else step - before
        members = self._buckets[bucket]
        positions = number * self.batch_size + np.arange(self.batch_size)
        epochs, offsets = np.divmod(positions, len(members))
        order = [
            _order(self.seed, int(epoch), bucket, len(members))[offset]
            for epoch, offset in zip(epochs, offsets, strict=True)
        ]
        return bucket, members[order]

    def __getitem__(self, step: int) -> HostBatch:
        positions = np.arange(self.batch_size)[self.share]
        _, numbers = self.examples_at(step)
        given = draws(self.seed, step, self.batch_size)
        sides = self.profile.shorter_side
        examples = [
            read_example(
                self.source,
                int(numbers[position]),
                self.profile,
                shorter=sides[int(given[position, 1] * len(sides))],
                mirrored=self.mirror and bool(given[position, 0] < 0.5),
            )
            for position in positions
        ]
        batch = gather(examples, self.objects)
        if self.proposals:
            of_images = [self.proposals.of_image(int(numbers[position])) for position in positions]
            moved = [one.move(boxes) for one, (boxes, _) in zip(examples, of_images, strict=True)]
            batch["proposals"] = np.stack(moved).astype(np.float32)
            batch["proposals_valid"] = np.stack([valid for _, valid in of_images])
        return batch | {"index": positions.astype(np.int32), "mask": np.ones(len(positions), bool)}


@dataclasses.dataclass(frozen=True)
class ObjectEvaluationBatches:
    """Every example of a split once: the lying images first; padding of the last batch of a bucket is masked.

    Attributes:
        source: The split.
        batch_size: Size of the global batch.
        share: This process's positions of the global batch.
        profile: Sizes and buckets.
        workers: Threads that read ahead.
        buffer: Batches read ahead.
        scaled: Batches have the images at every scale of the profile too, see `ImageBatch`.
    """

    source: ObjectSource
    batch_size: int
    share: slice | np.ndarray
    profile: Profile
    workers: int = 1
    buffer: int = 2
    scaled: bool = False

    @functools.cached_property
    def _batches(self) -> list[np.ndarray]:
        """Numbers of the examples of every global batch."""
        found = np.array([bucket_of(self.source.size(index)) for index in range(len(self.source))])
        return [
            members[start : start + self.batch_size]
            for bucket in (LYING, STANDING)
            for members in [np.flatnonzero(found == bucket)]
            for start in range(0, len(members), self.batch_size)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> HostBatch:
        numbers, positions = self._batches[number], np.arange(self.batch_size)[self.share]
        mask = positions < len(numbers)
        chosen = numbers[np.minimum(positions, len(numbers) - 1)]
        images = functools.partial(read_images, self.source, [int(index) for index in chosen])
        batch = images(self.profile)
        for side in self.profile.scales if self.scaled else ():
            of_scale = images(self.profile.at_scale(side))
            batch |= {f"{name}_{side}": array for name, array in of_scale.items()}
        return batch | {
            "example": chosen.astype(np.int32),
            "index": positions.astype(np.int32),
            "mask": mask,
        }

    def __iter__(self) -> Iterator[HostBatch]:
        return read_ahead(self, 0, len(self), workers=self.workers, buffer=self.buffer)


def check_objects(source: ObjectSource, profile: Profile, objects: int, *, field: str) -> None:
    """Checks that images are wide enough, and have objects, and none more than a batch has room for.

    Raises:
        DataError: Names the image, and the field to raise.
    """
    counts = [len(source.annotation(index).label) for index in range(len(source))]
    for index in range(len(source)):
        fit(source.size(index), profile, min(profile.shorter_side))
    if not any(counts):
        raise DataError(f"none of the {len(source)} images has an object; a detector needs some")
    most = int(np.argmax(counts))
    if counts[most] > objects:
        raise DataError(
            f"{source.describe(most)} has {counts[most]} objects, and a batch has room for {objects}; raise "
            f"--{field}, or thin out the annotations"
        )
