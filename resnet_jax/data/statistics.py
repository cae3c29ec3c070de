"""Statistics of a training set's pixels: the mean that is subtracted, and how its colors vary."""

import contextlib
import dataclasses
import hashlib
import os

import numpy as np
from jaxtyping import Float

from resnet_jax.data.batches import EvaluationBatches
from resnet_jax.data.choices import PIXEL, PUBLISHED, STATISTICS_SUFFIX
from resnet_jax.data.data_error import DataError
from resnet_jax.data.source import Source
from resnet_jax.files import NPZ_ERRORS, as_path, open_for_replacing

IMAGENET_CHANNEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
"""The published mean of ImageNet's training set, RGB in units of pixels."""

_MOST_DECODED = 50_000  # Images whose mean is computed at every start; larger sets keep it in a file.


@dataclasses.dataclass(frozen=True)
class ColorComponents:
    """The principal components of a training set's RGB values, for the color augmentation.

    Attributes:
        eigenvalues: Eigenvalues of the covariance of values scaled to [0, 1], the greatest first.
        eigenvectors: In columns, in the same order.
    """

    eigenvalues: Float[np.ndarray, "3"]
    eigenvectors: Float[np.ndarray, "3 3"]


IMAGENET_COLOR = ColorComponents(
    np.array([0.2175, 0.0188, 0.0045], np.float32),
    np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
    ),
)
"""The published values of ImageNet's training set, as in AlexNet and fb.resnet.torch."""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The mean of a set's images in units of pixels, its colors, and the number of images."""

    mean: Float[np.ndarray, "h w 3"]
    color: ColorComponents
    examples: int


def measure_pixels(source: Source, *, workers: int = 1) -> Statistics:
    """Returns the statistics of every image of a split, as evaluation sees it."""
    products = np.zeros((3, 3), np.float64)
    mean, examples = _mean(source, workers, products)
    center = mean.mean((0, 1))
    covariance = products / (examples * mean.size / 3) - np.outer(center, center)
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / 255**2)
    order = np.argsort(-eigenvalues)
    return Statistics(
        mean.astype(np.float32),
        ColorComponents(eigenvalues[order].astype(np.float32), eigenvectors[:, order].astype(np.float32)),
        examples,
    )


def image_mean(source: Source, kind: str, *, workers: int = 1) -> Float[np.ndarray, "..."]:
    """Returns the mean that a kind names, float32[H, W, 3] or [3], in units of pixels.

    Args:
        source: The training split.
        kind: "pixel" or "channel", computed from the split; "imagenet", the published one; or the path of a
            file that `resnet-jax statistics` wrote, whose mean is per pixel.
        workers: Threads that read.

    Raises:
        DataError: The file is none, or of another image size; or the split is too large for its mean to be
            computed at every start.
    """
    if kind == PUBLISHED:
        return IMAGENET_CHANNEL_MEAN
    if kind.endswith(STATISTICS_SUFFIX):
        mean = load_statistics(kind).mean
        if mean.shape != source.image_shape:
            its, ours = ("×".join(map(str, shape[:2])) for shape in (mean.shape, source.image_shape))
            raise DataError(f"{kind} is of images of {its}, and config.data has {ours}")
        return mean
    if source.view is not None and len(source) > _MOST_DECODED:
        raise DataError(
            f"config.data.mean={kind} would decode all {len(source)} images at every start; set it to "
            f"{PUBLISHED}, the published "
            "mean, or to the file that `resnet-jax statistics` writes"
        )
    mean = _kept_mean(source, workers)
    return (mean if kind == PIXEL else mean.mean((0, 1))).astype(np.float32)


def _kept_mean(source: Source, workers: int) -> Float[np.ndarray, "h w 3"]:
    """Returns the mean of every pixel, which is kept in the user's cache directory for images on disk."""
    if source.fingerprint is None:
        return _mean(source, workers)[0]
    seen = f"{source.fingerprint} {source.view} {source.image_shape}"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = f"{hashlib.sha256(seen.encode()).hexdigest()[:32]}.npy"
    path = os.path.join(base, "resnet_jax", "means", name)
    with contextlib.suppress(*NPZ_ERRORS):
        kept = np.load(path, allow_pickle=False)
        if kept.shape == source.image_shape and np.isfinite(kept).all():
            return kept
    mean = _mean(source, workers)[0]
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open_for_replacing(path) as file:
            np.save(file, mean, allow_pickle=False)
    return mean


def color_components(name: str) -> ColorComponents:
    """Returns the colors of a name: "imagenet", the published ones, or a file of statistics.

    Raises:
        DataError: The file is none.
    """
    return IMAGENET_COLOR if name == PUBLISHED else load_statistics(name).color


def save_statistics(path: str, statistics: Statistics) -> None:
    """Writes a file of statistics, whole or not at all.

    Raises:
        DataError: The path does not end in .npz.
    """
    if not path.endswith(STATISTICS_SUFFIX):
        raise DataError(f"the file of statistics is {path!r}; its name must end in {STATISTICS_SUFFIX}")
    with open_for_replacing(path) as file:
        np.savez(
            file,
            mean=statistics.mean,
            eigenvalues=statistics.color.eigenvalues,
            eigenvectors=statistics.color.eigenvectors,
            examples=statistics.examples,
        )


def load_statistics(path: str) -> Statistics:
    """Reads a file of statistics.

    Raises:
        DataError: There is none, or it is something else.
    """
    try:
        with as_path(path).open("rb") as file, np.load(file) as arrays:
            return Statistics(
                arrays["mean"],
                ColorComponents(arrays["eigenvalues"], arrays["eigenvectors"]),
                int(arrays["examples"]),
            )
    except NPZ_ERRORS as error:
        raise DataError(
            f"{path} is not a file of statistics; `resnet-jax statistics SOURCE FILE{STATISTICS_SUFFIX}` "
            "writes one"
        ) from error


def _mean(
    source: Source, workers: int, products: Float[np.ndarray, "3 3"] | None = None
) -> tuple[Float[np.ndarray, "h w 3"], int]:
    total, examples = np.zeros(source.image_shape, np.float64), 0
    for batch in EvaluationBatches(source, 64, slice(0, 64), workers=workers, buffer=4):
        images = batch["image"][batch["mask"]]
        examples += len(images)
        total += images.sum(0, dtype=np.float64)
        if products is not None:
            for image in images:  # Sums of products of bytes are whole numbers, exact in float64.
                values = image.reshape(-1, 3).astype(np.float64)
                products += values.T @ values
    if not examples:
        raise DataError("no image of the split can be decoded")
    return total / examples, examples
