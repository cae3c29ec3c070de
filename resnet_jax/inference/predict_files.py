"""Predictions for image files, which are decoded in parallel and given to the network in batches."""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.data.image_files import find_images, note_left_out
from resnet_jax.errors import ResNetError
from resnet_jax.inference.preprocessing import Preprocessing
from resnet_jax.inference.trained import BATCH, Guess, Trained


class UnreadableError(ResNetError):
    """Some pictures could not be read; the others were predicted."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The likeliest classes of a picture, the likeliest first."""

    file: str
    top: tuple[Guess, ...]


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A file that is no picture, or not a whole one, or not there, and why."""

    file: str
    reason: str


def predict_files(
    trained: Trained, files: Sequence[str], *, top: int = 5, batch_size: int = BATCH, threads: int = 1
) -> Iterator[Prediction | Unreadable]:
    """Yields the likeliest classes of every file, or why it cannot be read, in the order of the files.

    Args:
        trained: The network; pictures are resized and cropped as its preprocessing says.
        files: Paths or URLs.
        top: Number of classes for each file, at most all.
        batch_size: Files that the network sees at once; the last batch is filled up, so that one program is
            compiled.
        threads: Number of threads that read and decode.
    """
    side, size = trained.preprocessing.crop, max(1, min(batch_size, len(files)))
    batch = np.zeros((size, side, side, 3), np.uint8)
    read = functools.partial(_read, trained.preprocessing)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        ahead = pool.map(read, files[:size])
        for start in range(0, len(files), size):
            found = list(ahead)
            ahead = pool.map(read, files[start + size : start + 2 * size])  # While the network computes.
            pictures = [pixels for pixels in found if not isinstance(pixels, str)]
            batch[: len(pictures)] = pictures or 0
            logits = iter(np.asarray(trained.program(batch)) if pictures else ())
            for file, pixels in zip(files[start : start + size], found, strict=True):
                if isinstance(pixels, str):
                    yield Unreadable(file, pixels)
                else:
                    yield Prediction(file, trained.likeliest(next(logits), top))


def find_pictures(names: Iterable[str]) -> list[str]:
    """Returns files as they are named, and for a folder the images in it and below, sorted by their path.

    Linked folders are searched too. What is no image is reported once.

    Raises:
        DataError: A folder has none.
    """
    found: list[str] = []
    for name in names:
        if not os.path.isdir(name):
            found.append(name)
            continue
        listing = find_images(name)
        note_left_out(name, listing.left_out)
        if not listing.images:
            raise DataError(f"folder {name} has no images, of {len(listing.left_out)} files and links in it")
        found += [os.path.join(name, image) for image in listing.images]
    return found


def _read(preprocessing: Preprocessing, file: str) -> UInt8[np.ndarray, "h w 3"] | str:
    """Returns the pixels of a file, resized and cropped, or why it has none."""
    pixels = np.empty((preprocessing.crop, preprocessing.crop, 3), np.uint8)
    try:
        preprocessing.fit(file, pixels)
        return pixels
    except CorruptImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
