"""What a net says of pictures: files are decoded side by side, in order, and seen by the net in batches of one shape."""

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import UInt8

from resnet_jax.data.choices import DIGITS
from resnet_jax.data.crops import CenterCrop
from resnet_jax.data.decode import decode, decode_crop, image_size
from resnet_jax.data.errors import CorruptImageError, DataError
from resnet_jax.data.folder import IMAGE_SUFFIXES
from resnet_jax.errors import ResNetError
from resnet_jax.interop.trained import Trained

BATCH = 32
"""Pictures that the net sees at once; fewer where fewer are asked for."""


class UnreadableError(ResNetError):
    """Some pictures could not be read; the others were predicted."""


@dataclasses.dataclass(frozen=True)
class Guess:
    """A class that a picture may be of: its label, its name, and its probability by the net's softmax."""

    label: int
    name: str
    probability: float


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


def predict(
    trained: Trained, files: Sequence[str], *, top: int = 5, batch_size: int = BATCH, threads: int = 1
) -> Iterator[Prediction | Unreadable]:
    """Yields the likeliest classes of every file, in the order of the files; those that cannot be read come as they are met.

    Args:
        trained: The net, see `read_trained`. Pictures are resized and cropped as its preprocessing says.
        files: Paths or URLs.
        top: Classes for each, at most all.
        batch_size: Of what the net sees at once; the last batch is filled up, so that one program is compiled.
        threads: That read and decode.
    """
    classes = trained.model_arguments["num_classes"]
    program = jax.jit(partial(_likeliest, trained, top=min(top, classes)))
    variables = jax.device_put(trained.variables)
    side = trained.preprocessing.crop
    batch = np.zeros((min(batch_size, len(files)), side, side, 3), np.uint8)
    waiting: list[str] = []

    def predictions() -> Iterator[Prediction]:
        probabilities, labels = jax.device_get(program(variables, batch))
        for file, row, chosen in zip(waiting, probabilities, labels, strict=False):
            guesses = zip(chosen.tolist(), row.tolist(), strict=True)
            yield Prediction(
                file, tuple(Guess(label, _name(trained, label), value) for label, value in guesses)
            )
        waiting.clear()

    for file, picture in _pictures(trained, files, threads=threads, ahead=2 * len(batch)):
        if isinstance(picture, str):
            yield Unreadable(file, picture)
            continue
        batch[len(waiting)] = picture
        waiting.append(file)
        if len(waiting) == len(batch):
            yield from predictions()
    if waiting:
        yield from predictions()


def find_pictures(names: Iterable[str]) -> list[str]:
    """Returns files as they are named, and for a folder the pictures in it and below, sorted by their path.

    Raises:
        DataError: A folder has none.
    """
    found: list[str] = []
    for name in names:
        if not os.path.isdir(name):
            found.append(name)
            continue
        inside = [
            os.path.join(folder, file)
            for folder, _, files in os.walk(name)
            for file in files
            if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES and not file.startswith(".")
        ]
        if not inside:
            raise DataError(f"folder {name} has no pictures; allowed are {', '.join(sorted(IMAGE_SUFFIXES))}")
        found += sorted(inside)
    return found


def _likeliest(
    trained: Trained, variables: dict, pictures: jax.Array, *, top: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the greatest probabilities float32[n, top] and their labels int32[n, top], in the order of the logits."""
    logits = trained.logits(variables, pictures)
    greatest, labels = jax.lax.top_k(logits, top)
    return jnp.exp(greatest - jax.nn.logsumexp(logits, axis=1, keepdims=True)), labels


def _name(trained: Trained, label: int) -> str:
    return trained.class_names[label] if trained.class_names else str(label)


def _pictures(
    trained: Trained, files: Sequence[str], *, threads: int, ahead: int
) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"] | str]]:
    """Yields every file with its pixels, or with why there are none, in order; at most `ahead` are held."""
    view = CenterCrop(trained.preprocessing.crop, trained.preprocessing.resize)
    see = partial(_see, view=view, doubled=trained.source == DIGITS)
    pending: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        remaining = iter(files)
        for done in files:
            while len(pending) < ahead and (following := next(remaining, None)) is not None:
                pending.append(pool.submit(see, following))
            yield done, pending.popleft().result()


def _see(file: str, *, view: CenterCrop, doubled: bool) -> UInt8[np.ndarray, "h w 3"] | str:
    """Returns the pixels of a file through a view, or why it has none.

    Args:
        file: Path or URL.
        view: Of the net.
        doubled: Enlarge by repeating pixels where that gives the view's size, as was done with the embedded digits.
    """
    try:
        encoded = epath.Path(file).read_bytes()
        width, height = image_size(encoded)
        if doubled and width == height and view.size % width == 0:
            return decode(encoded).repeat(view.size // width, 0).repeat(view.size // width, 1)
        picture = np.empty((view.size, view.size, 3), np.uint8)
        decode_crop(encoded, view.box(width, height), (width, height), picture)
        return picture
    except CorruptImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
