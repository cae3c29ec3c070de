"""Evaluation of runs' checkpoints on a whole split: figures, or predictions of each example."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NotRequired

import numpy as np
from jaxtyping import Float, Int

from resnet_jax.data.data_error import DataError
from resnet_jax.data.source import Source
from resnet_jax.evaluation.counts import Counts, Figures, predicted
from resnet_jax.evaluation.protocols import SINGLE, Protocol
from resnet_jax.evaluation.scoring import Scores
from resnet_jax.evaluation.trial import Trial, Workdirs, open_trials
from resnet_jax.training.stored_classes import ClassMap
from resnet_jax.training.stored_statistics import MOVING


class Evaluation(Figures):
    """The figures of an evaluation, and what was evaluated.

    Attributes:
        step: Step of the checkpoint; a list for an ensemble.
        split: Name of the split.
        protocol: Name of the protocol.
        statistics: "moving" or "precise".
        statistics_images: Number of training images that precise statistics were computed from.
        classes: Number of classes that have examples, where some have none.
        restricted: Whether only these could be predicted.
    """

    step: int | list[int]
    split: str
    protocol: str
    statistics: str
    statistics_images: NotRequired[int]
    classes: NotRequired[int]
    restricted: NotRequired[bool]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of a network, or an ensemble, for every example of a split.

    Attributes:
        numbers: int64[N], increasing: numbers of the examples in the split, without those that were skipped.
        labels: int32[N], the true labels.
        log_probabilities: float32[N, classes], natural logarithms.
        class_names: By label.
        source: The split; `source.read(numbers)` gives images, uint8, labels and a mask.
        split: Its name.
        steps: Steps of the checkpoints.
    """

    numbers: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    log_probabilities: Float[np.ndarray, "n classes"]
    class_names: Sequence[str]
    source: Source
    split: str
    steps: tuple[int, ...]

    @property
    def probabilities(self) -> Float[np.ndarray, "n classes"]:
        """Rows that sum to 1."""
        return np.exp(self.log_probabilities)

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """The likeliest class of every example."""
        return predicted(self._scores)

    @property
    def counts(self) -> Counts:
        """`counts.results()`, `counts.per_class()` and `counts.confusion`, of all examples."""
        counts = Counts(self.log_probabilities.shape[1])
        counts.add(self._scores)
        return counts

    @property
    def _scores(self) -> Scores:
        return Scores(self.numbers, self.labels, self.log_probabilities)


def evaluate_checkpoint(
    workdir: Workdirs,
    *,
    step: int | None = None,
    split: str | None = None,
    source: str | None = None,
    data_dir: str | None = None,
    protocol: Protocol | str = SINGLE,
    statistics: str = MOVING,
    batch_size: int | None = None,
    class_map: ClassMap | None = None,
    restrict: bool = False,
) -> Evaluation:
    """Returns `loss`, `top1`, `top5` (with more than 5 classes), `examples`, and what was evaluated.

    Args:
        workdir: Directory of a run, or of several, whose probabilities are averaged; `step` is then a list.
        step: Checkpoint to evaluate. Defaults to the newest.
        split: Split of the dataset. Defaults to the config's test split.
        source: The data set, as `config.data.source`; None is the run's. Its classes are matched with the
            network's by name or WordNet id; it may have some of them only.
        data_dir: Directory of the dataset. Defaults to where the run found it.
        protocol: A name, or a Protocol with its options.
        statistics: Statistics of batch normalization: "moving", or "precise" if they were recomputed.
        batch_size: See `Scorer.scores`; None is the run's.
        class_map: Which class of the data is which of the network; see `read_class_map`. Defaults to
            their names.
        restrict: Choose among the classes that have examples only, as is usual for ImageNet-A and -R.

    Raises:
        WorkdirError, CheckpointError, DataError, ProtocolError: What was asked for is not there or does not
            go together.
    """
    trials = open_trials(
        workdir,
        step=step,
        split=split,
        source=source,
        data_dir=data_dir,
        statistics=statistics,
        class_map=class_map,
        restrict=restrict,
    )
    counts = Counts(len(trials[0].source.class_names))
    chosen = Protocol(protocol) if isinstance(protocol, str) else protocol
    for scores in all_scores(trials, chosen, batch_size=batch_size):
        counts.add(scores)
    return evaluation_of(counts, trials, chosen)


def predictions(
    workdir: Workdirs,
    *,
    step: int | None = None,
    split: str | None = None,
    source: str | None = None,
    data_dir: str | None = None,
    protocol: Protocol | str = SINGLE,
    statistics: str = MOVING,
    batch_size: int | None = None,
    class_map: ClassMap | None = None,
    restrict: bool = False,
) -> Predictions:
    """Returns the predictions of a run, or of an ensemble, for every example of a split.

    The arguments are those of `evaluate_checkpoint`.

    Example:
        >>> found = predictions("runs/digits_resnet20")
        >>> wrong = np.flatnonzero(found.predicted != found.labels)
        >>> images, labels, _ = found.source.read(found.numbers[wrong])
        >>> found.counts.results()["top1"], found.counts.confusion
    """
    trials = open_trials(
        workdir,
        step=step,
        split=split,
        source=source,
        data_dir=data_dir,
        statistics=statistics,
        class_map=class_map,
        restrict=restrict,
    )
    protocol = Protocol(protocol) if isinstance(protocol, str) else protocol
    first = trials[0]
    return Predictions(
        *concatenate_scores(all_scores(trials, protocol, batch_size=batch_size)),
        first.source.class_names,
        first.source,
        first.split,
        tuple(trial.checkpoint.step for trial in trials),
    )


def all_scores(
    trials: Sequence[Trial],
    protocol: Protocol,
    *,
    batch_size: int | None = None,
    scored: Callable[[int], object] = lambda _: None,
) -> Iterator[Scores]:
    """Yields the scores of one net, or of the ensemble of several.

    Args:
        trials: Trials of the networks.
        protocol: What is seen of an image.
        batch_size: See `Scorer.scores`; None is the run's.
        scored: Called with the number of examples that a network has just scored.
    """
    return average_members([_told(trial.scores(protocol, batch_size=batch_size), scored) for trial in trials])


def _told(scores: Iterator[Scores], scored: Callable[[int], object]) -> Iterator[Scores]:
    for part in scores:
        scored(len(part.numbers))
        yield part


def evaluation_of(counts: Counts, trials: Sequence[Trial], protocol: Protocol) -> Evaluation:
    """Returns the figures of an evaluation, and what was evaluated."""
    first, steps = trials[0], [trial.checkpoint.step for trial in trials]
    evaluation: Evaluation = {
        **counts.results(),
        "step": steps[0] if len(steps) == 1 else steps,
        "split": first.split,
        "protocol": protocol.name,
        "statistics": first.statistics,
    }
    present = int((counts.confusion.sum(axis=1) > 0).sum())
    if present < len(counts.confusion):
        evaluation["classes"], evaluation["restricted"] = present, first.restricted is not None
    if first.images:
        evaluation["statistics_images"] = first.images
    return evaluation


def average_members(members: Sequence[Iterator[Scores]]) -> Iterator[Scores]:
    """Yields the scores of an ensemble: of each example the mean over the members of their probabilities.

    One member's scores are passed on as they come. Those of several are computed one member after the other,
    and summed in an array of examples × classes.

    Args:
        members: Scores of the same examples by each.
    """
    if len(members) == 1:
        yield from members[0]
        return
    total = concatenate_scores(members[0])
    for member in members[1:]:
        scores = concatenate_scores(member)
        if not (
            np.array_equal(scores.numbers, total.numbers) and np.array_equal(scores.labels, total.labels)
        ):
            raise DataError(
                "the nets of an ensemble must be evaluated on the same examples, and the labels of theirs "
                "differ"
            )
        np.logaddexp(total.log_probabilities, scores.log_probabilities, out=total.log_probabilities)
    yield total._replace(log_probabilities=total.log_probabilities - np.float32(np.log(len(members))))


def concatenate_scores(scores: Iterator[Scores]) -> Scores:
    """Returns all scores at once, in the order of the examples, with log-probabilities in float32."""
    parts = [part._replace(log_probabilities=part.log_probabilities.astype(np.float32)) for part in scores]
    whole = Scores(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    order = np.argsort(whole.numbers)
    return Scores(*(column[order] for column in whole))
