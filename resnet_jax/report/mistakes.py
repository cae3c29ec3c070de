"""What the net of a run takes for what on its test split: the confusion of its classes, and the mistakes that it was surest of."""

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
SUREST = 12
"""Mistakes that are shown."""


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An example that is taken for what it is not.

    Attributes:
        number: Of the example in its split.
        label: The true one.
        predicted: The likeliest label.
        confidence: Its probability by the net's softmax.
        pixels: What the net saw.
    """

    number: int
    label: int
    predicted: int
    confidence: float
    pixels: UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """What a net makes of a split.

    Attributes:
        class_names: By label.
        split: Its name.
        of: Examples in the split; those that were looked at may be fewer.
        step: Of the checkpoint.
        confusion: Examples of each class (row) that are taken for each class (column).
        surest: The mistakes with the greatest confidence, the greatest first.
    """

    class_names: Sequence[str]
    split: str
    of: int
    step: int
    confusion: Int[np.ndarray, "c c"]
    surest: tuple[Mistake, ...]

    @property
    def wrong(self) -> Int[np.ndarray, "c c"]:
        """The confusion without what is right."""
        return self.confusion - np.diag(np.diag(self.confusion))


def find_mistakes(workdir: str, *, examples: int, data_dir: str | None = None) -> Mistakes:
    """Returns what the newest checkpoint of a run makes of its test split.

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
    check_there(name, config.run.data_dir or None)
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
    return Mistakes(
        source.class_names,
        config.data.test_split,
        len(source),
        trained.step,
        np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes),
        surest_mistakes(source, numbers, labels, predicted, confidences),
    )


def surest_mistakes(
    source: Source,
    numbers: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    confidences: Float[np.ndarray, " n"],
) -> tuple[Mistake, ...]:
    """Returns the `SUREST` examples with the greatest confidence among those that are mistaken; of equals, the first."""
    wrong = np.flatnonzero(labels != predicted)
    chosen = wrong[np.argsort(-confidences[wrong], kind="stable")[:SUREST]]
    if not len(chosen):
        return ()
    images, _ = source.read(numbers[chosen])
    return tuple(
        Mistake(int(numbers[place]), int(labels[place]), int(predicted[place]), float(confidences[place]), pixels)
        for place, pixels in zip(chosen, images, strict=True)
    )


def spread(count: int, most: int) -> Int[np.ndarray, " n"]:
    """Returns the numbers below `count`, or `most` of them spread evenly; 0 is all."""
    return np.arange(count) if not most or most >= count else np.arange(most) * count // most


def check_there(name: str, data_dir: str | None) -> None:
    """Checks that a set is there: a report is no reason to download it.

    Raises:
        DataError: It is not.
    """
    if name in (DIGITS, SYNTHETIC) or is_path(name):
        return
    from resnet_jax.data.tfds_sets import is_prepared  # Here: others need not wait for TFDS.

    if not is_prepared(name, data_dir):
        raise DataError(f"{name} is not prepared in {data_dir or 'the folder of TFDS'}; --data-dir says where it is")


def _read(
    source: Source, numbers: Int[np.ndarray, " n"]
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Returns images, labels, and which of them could be decoded."""
    if isinstance(source, DecodedSource):
        return source.read_masked(numbers)
    return *source.read(numbers), np.ones(len(numbers), bool)
