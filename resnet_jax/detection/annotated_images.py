"""Images on a disk or in TFDS with their objects, and the checks that every reader of annotations makes."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.data.decode import decode
from resnet_jax.detection.object_source import Annotation

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
"""The classes of PASCAL VOC."""


@dataclasses.dataclass(frozen=True)
class AnnotatedImages:
    """A split whose annotations are in memory and whose images are decoded when they are asked for.

    Attributes:
        names: Places of the images, for messages; the paths of files in folders.
        sizes: Height and width of each image, in pixels.
        annotations: The objects of each image.
        class_names: Names of the classes, by label.
        encoded: Returns the bytes of an image by number.
        dropped: Numbers of the annotated objects that were dropped, by the reason.
    """

    names: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    annotations: Sequence[Annotation]
    class_names: Sequence[str]
    encoded: Callable[[int], bytes]
    dropped: dict[str, int]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for size, annotation in zip(self.sizes, self.annotations, strict=True):
            digest.update(repr(size).encode())
            for array in annotation:
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def size(self, index: int) -> tuple[int, int]:
        return self.sizes[index]

    def annotation(self, index: int) -> Annotation:
        return self.annotations[index]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        try:
            pixels = decode(self.encoded(index))
        except CorruptImageError as error:
            raise DataError(f"{self.describe(index)}: {error}; restore the file") from error
        except OSError as error:
            raise DataError(f"{self.describe(index)} cannot be read: {error.strerror or error}") from error
        if pixels.shape[:2] != self.sizes[index]:
            told = "{1}×{0}".format(*self.sizes[index])
            raise DataError(
                f"{self.describe(index)} has {pixels.shape[1]}×{pixels.shape[0]} pixels, and its "
                "annotation says "
                f"{told}; its boxes would be off"
            )
        return pixels

    def describe(self, index: int) -> str:
        return self.names[index]


ObjectRow = tuple[Sequence[float], int, bool, bool, float]
"""An object: edges in pixels, label, whether it is a crowd, whether it is difficult, area."""


@dataclasses.dataclass
class Checker:
    """Makes annotations of what files say; drops objects that cannot be learned, and counts them."""

    dropped: Counter[str] = dataclasses.field(default_factory=Counter)

    def annotation(
        self,
        where: str,
        size: tuple[int, int],
        rows: Sequence[ObjectRow],
    ) -> Annotation:
        """Returns the objects of an image.

        Args:
            where: Name of the file, for messages.
            size: Height and width of the image in pixels.
            rows: The objects; a negative area is that of the box.

        Raises:
            DataError: An edge is not a finite number.
        """
        kept = []
        height, width = size
        for edges, label, crowd, difficult, area in rows:
            box = np.asarray(edges, np.float64)
            if not np.isfinite(box).all():
                raise DataError(f"{where} has a box with the edges {list(edges)}; edges are finite numbers")
            inside = np.clip(box, 0, [width, height, width, height])
            if not (box[2:] > box[:2]).all():
                self.dropped["no width or no height"] += 1
            elif not (inside[2:] > inside[:2]).all():
                self.dropped["outside of the image"] += 1
            else:
                if (inside != box).any():
                    self.dropped["(kept, cut at the border of the image)"] += 1
                sides = inside[2:] - inside[:2]
                kept.append((inside, label, crowd, difficult, float(sides.prod()) if area < 0 else area))
        return Annotation(
            np.array([row[0] for row in kept], np.float64).reshape(-1, 4),
            np.array([row[1] for row in kept], np.int32),
            np.array([row[2] for row in kept], bool),
            np.array([row[3] for row in kept], bool),
            np.array([row[4] for row in kept], np.float64),
        )
