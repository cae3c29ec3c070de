"""What the net of a run says of its test split: the confusion of its classes, and the mistakes that it was surest of."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from ml_collections import ConfigDict

from resnet_jax.data import DataError
from resnet_jax.data.encoded import DecodedSource
from resnet_jax.data.sources import DIGITS, SYNTHETIC, Source, is_path
from resnet_jax.interop.trained import read_trained
from resnet_jax.training.config import resolve
from resnet_jax.training.experiment import open_split
from resnet_jax.training.workdir import read_config

BATCH = 100
"""Images that the net sees at once."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a net says of the examples of a split.

    Attributes:
        class_names: By label.
        split: Its name.
        of: Examples in the split; those here may be fewer.
        step: Of the checkpoint.
        numbers: Of the examples, in the split.
        labels: True ones.
        predicted: The likeliest labels.
        confidences: Their probabilities by the net's softmax.
        source: To read an image by its number.
    """

    class_names: Sequence[str]
    split: str
    of: int
    step: int
    numbers: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    confidences: Float[np.ndarray, " n"]
    source: Source

    @property
    def wrong(self) -> Bool[np.ndarray, " n"]:
        return self.labels != self.predicted

    def confusion(self) -> Int[np.ndarray, "c c"]:
        """Returns how many examples of each class (rows) the net takes for each class (columns)."""
        classes = len(self.class_names)
        return np.bincount(self.labels * classes + self.predicted, minlength=classes**2).reshape(classes, classes)

    def surest_mistakes(self, count: int) -> Int[np.ndarray, " m"]:
        """Returns the places of the wrong predictions with the greatest confidence, the greatest first."""
        places = np.flatnonzero(self.wrong)
        return places[np.argsort(-self.confidences[places], kind="stable")[:count]]

    def image(self, place: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the pixels that the net saw."""
        return self.source.read([int(self.numbers[place])])[0][0]


def predict_split(workdir: str, *, examples: int, data_dir: str | None = None) -> Predictions:
    """Returns what the newest checkpoint of a run says of its test split.

    Args:
        workdir: Of the run.
        examples: At most, spread evenly over the split; 0 is all.
        data_dir: Where the data set is; None is where the run found it.

    Raises:
        CheckpointError, ConfigError, DataError, InteropError, ModelError: The net or the data is not there, or they do not fit.
    """
    config = resolve(ConfigDict(read_config(workdir)))
    if data_dir is not None:
        config.run.data_dir = data_dir
    name = config.data.source
    if not name:
        raise DataError("the weights are imported, and the data that they were trained on is not known")
    _check_there(name, config.run.data_dir or None)
    trained = read_trained(workdir)
    source = open_split(config, config.data.test_split, test=True)
    classes = trained.model_arguments["num_classes"]
    if len(source.class_names) != classes:
        raise DataError(f"{name} has {len(source.class_names)} classes, and the net {classes}")
    chosen = spread(len(source), examples)

    @jax.jit
    def likeliest(variables: dict, pictures: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = trained.logits(variables, pictures)
        return jnp.argmax(logits, 1), jnp.exp(logits.max(1) - jax.nn.logsumexp(logits, axis=1))

    variables = jax.device_put(trained.variables)
    found = []
    for start in range(0, len(chosen), BATCH):
        numbers = chosen[start : start + BATCH]
        images, labels, mask = _read(source, numbers)
        padded = np.zeros((BATCH, *source.image_shape), np.uint8)
        padded[: len(images)] = images
        predicted, confidences = jax.device_get(likeliest(variables, padded))
        found.append([part[: len(numbers)][mask] for part in (numbers, labels, predicted, confidences)])
    numbers, labels, predicted, confidences = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Predictions(
        source.class_names, config.data.test_split, len(source), trained.step, numbers, labels, predicted, confidences, source
    )


def spread(count: int, most: int) -> Int[np.ndarray, " n"]:
    """Returns the numbers below `count`, or `most` of them spread evenly; 0 is all."""
    return np.arange(count) if not most or most >= count else np.arange(most) * count // most


def _check_there(name: str, data_dir: str | None) -> None:
    """Raises `DataError` where a set would have to be downloaded: a report is no reason to do so."""
    if name in (DIGITS, SYNTHETIC) or is_path(name):
        return
    from resnet_jax.data.tfds_sets import is_prepared  # Here: others need not wait for TFDS.

    if not is_prepared(name, data_dir):
        raise DataError(f"{name} is not prepared in {data_dir or 'the default folder of TFDS'}; --data-dir says where it is")


def _read(
    source: Source, numbers: Int[np.ndarray, " n"]
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Returns images, labels, and which of them could be decoded."""
    if isinstance(source, DecodedSource):
        return source.read_masked(numbers)
    return *source.read(numbers), np.ones(len(numbers), bool)
