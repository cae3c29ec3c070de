"""What a network confuses on its test split, and its most confident mistakes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from resnet_jax.data.choices import EMBEDDED
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import is_path
from resnet_jax.data.relabeled import only_examples
from resnet_jax.data.source import Source, read_all
from resnet_jax.evaluation.counts import Counts, predicted
from resnet_jax.evaluation.protocols import SINGLE, Protocol
from resnet_jax.evaluation.trial import open_trial
from resnet_jax.training.workdir import read_config

SUREST = 12
"""Number of mistakes that are shown."""


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An example that is taken for what it is not.

    Attributes:
        number: Number of the example in its split.
        label: The true label.
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
    """Predictions of a network on a split, summarized.

    Attributes:
        class_names: By label.
        split: Its name.
        of: Number of examples in the split; fewer may have been evaluated.
        step: Step of the checkpoint.
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
        """The confusion matrix without its diagonal."""
        return self.confusion - np.diag(np.diag(self.confusion))


def find_mistakes(workdir: str, *, examples: int, data_dir: str | None = None) -> Mistakes:
    """Returns the mistakes of the newest checkpoint of a run on its test split.

    Args:
        workdir: Directory of the run.
        examples: At most, spread evenly over the split; 0 is all.
        data_dir: Directory of the dataset. Defaults to where the run found it.

    Raises:
        CheckpointError, ConfigError, DataError, ModelError: The net or the data is not there, or they do not
            fit.
    """
    trial = open_trial(workdir, data_dir=data_dir)
    chosen = spread(len(trial.source), examples)
    counts = Counts(len(trial.source.class_names))
    found = []
    for scores in dataclasses.replace(trial, source=only_examples(trial.source, chosen)).scores(
        Protocol(SINGLE)
    ):
        counts.add(scores)
        found.append(
            (
                chosen[scores.numbers],
                scores.labels,
                predicted(scores),
                np.exp(scores.log_probabilities.max(1)),
            )
        )
    return Mistakes(
        trial.source.class_names,
        trial.split,
        len(trial.source),
        trial.checkpoint.step,
        counts.confusion,
        surest_mistakes(trial.source, *map(np.concatenate, zip(*found, strict=True))),
    )


def surest_mistakes(
    source: Source,
    numbers: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    confidences: Float[np.ndarray, " n"],
) -> tuple[Mistake, ...]:
    """Returns the `SUREST` mistakes with the greatest confidence; of equals, the first."""
    wrong = np.flatnonzero(labels != predicted)
    chosen = wrong[np.argsort(-confidences[wrong], kind="stable")[:SUREST]]
    if not len(chosen):
        return ()
    images, _ = read_all(source, numbers[chosen])
    return tuple(
        Mistake(
            int(numbers[place]), int(labels[place]), int(predicted[place]), float(confidences[place]), pixels
        )
        for place, pixels in zip(chosen, images, strict=True)
    )


def spread(count: int, most: int) -> Int[np.ndarray, " n"]:
    """Returns the numbers below `count`, or `most` of them spread evenly; 0 is all."""
    return np.arange(count) if not most or most >= count else np.arange(most) * count // most


def check_there(workdir: str, data_dir: str | None) -> None:
    """Checks that the data of a run need not be downloaded: a report is no reason to do so.

    Raises:
        DataError: It would have to be.
    """
    config = read_config(workdir)
    name, data_dir = config.data.source, data_dir or config.run.data_dir
    if not name or name in EMBEDDED or is_path(name):
        return
    from resnet_jax.data.tfds_sets import is_tfds_prepared  # Here: others need not wait for TFDS.

    if not is_tfds_prepared(name, data_dir):
        raise DataError(
            f"{name} is not prepared in {data_dir or 'the folder of TFDS'}; --data-dir says where it is"
        )
