"""Proposals of a split in a file, which one half of the alternation hands to the other."""

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

from resnet_jax.data.data_error import DataError
from resnet_jax.files import NPZ_ERRORS, PathLike, as_path, open_for_replacing


@dataclasses.dataclass(frozen=True)
class Proposals:
    """Proposals of every image of a split.

    Attributes:
        boxes: Edges in pixels of the original images, float32[images, p, 4].
        valid: Which proposals there are, bool[images, p].
    """

    boxes: Float[np.ndarray, "n p 4"]
    valid: Bool[np.ndarray, "n p"]

    def of_image(self, index: int) -> tuple[Float[np.ndarray, "p 4"], Bool[np.ndarray, " p"]]:
        """Returns the proposals of an image, and which there are."""
        return self.boxes[index], self.valid[index]


def write_proposals(path: PathLike, proposals: Proposals) -> None:
    """Writes proposals as a .npz file, whole or not at all."""
    arrays = {"boxes": proposals.boxes.astype(np.float32), "valid": proposals.valid}
    with open_for_replacing(as_path(path)) as file:
        np.savez(file, allow_pickle=False, **arrays, checksum=np.array(_digest(arrays.values())))


def read_proposals(path: PathLike, *, images: int) -> Proposals:
    """Reads proposals.

    Args:
        path: What `write_proposals` wrote.
        images: Images that the split has.

    Raises:
        DataError: There is no such file, it is damaged, or of a split with other images.
    """
    again = "write it again with `resnet-jax proposals`"
    try:
        with as_path(path).open("rb") as file, np.load(file) as stored:
            boxes, valid, checksum = stored["boxes"], stored["valid"], str(stored["checksum"])
    except FileNotFoundError:
        raise DataError(f"there is no file of proposals {path}; {again}") from None
    except NPZ_ERRORS as error:
        raise DataError(f"{path} is no file of proposals, or damaged; {again}") from error
    if _digest((boxes, valid)) != checksum:
        raise DataError(f"{path} is not as it was written (its checksum differs); {again}")
    if len(boxes) != images:
        raise DataError(f"{path} has proposals of {len(boxes)} images, and the split has {images}; {again}")
    return Proposals(boxes, valid)


def _digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
