"""Evaluation of runs' checkpoints on a whole split, every example once: figures, or what the nets say of each example."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, Int

from resnet_jax.data.batches import reading_threads
from resnet_jax.data.errors import DataError
from resnet_jax.data.source import Source
from resnet_jax.evaluation.counts import Counts, predicted
from resnet_jax.evaluation.ensemble import average, collect
from resnet_jax.evaluation.protocols import SINGLE, Protocol, ProtocolError, look_of
from resnet_jax.evaluation.scoring import Net, Scores
from resnet_jax.models import create_model
from resnet_jax.models.stacking import stack_arrays
from resnet_jax.parallel import create_mapping
from resnet_jax.training.checkpoints import Checkpoint, read_checkpoint
from resnet_jax.training.config import Config, from_json, with_fields
from resnet_jax.training.network import prepare_jax, with_scanned_stages
from resnet_jax.training.splits import open_split
from resnet_jax.training.state import split_variables
from resnet_jax.training.stored_statistics import MOVING, with_statistics

Workdirs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""Of a run, or of the several runs of an ensemble."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A checkpoint that is about to be evaluated on a split.

    Attributes:
        workdir: Of the run.
        checkpoint: With the statistics that are asked for.
        config: Of the run, as it is run here.
        net: On the devices of this process.
        source: The split.
        split: Its name.
        statistics: "moving" or "precise".
        images: Training images that precise statistics are of; 0 for moving ones.
    """

    workdir: str
    checkpoint: Checkpoint
    config: Config
    net: Net
    source: Source
    split: str
    statistics: str
    images: int

    def scores(
        self, protocol: Protocol, *, batch_size: int | None = None, limit: int | None = None
    ) -> Iterator[Scores]:
        """Yields the scores of the split's examples; see `Net.scores`.

        Raises:
            ProtocolError: The net takes images of one size, and the protocol shows others.
        """
        side, fixed = self.source.image_shape[0], not self.net.model.takes_any_size
        sights = look_of(protocol, self.source)(side, side)
        if fixed and any((sight.height, sight.width) != (side, side) for sight in sights):
            name = self.checkpoint.model["name"]
            raise ProtocolError(
                f"{name} takes images of {side}×{side} pixels only, for which its fully connected layers are "
                f"made, and the protocol {protocol.name} shows others"
            )
        workers = reading_threads(self.config.run.workers)
        size = batch_size or self.config.batch_size
        return self.net.scores(self.source, protocol, batch_size=size, workers=workers, limit=limit)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a net, or an ensemble, says of every example of a split.

    Attributes:
        numbers: int64[N], of the examples in the split, rising; all but those that were skipped.
        labels: int32[N], the true ones.
        log_probabilities: float32[N, classes], natural logarithms.
        class_names: By label.
        source: The split; `source.read(numbers)` gives images, uint8, labels and a mask.
        split: Its name.
        steps: Of the checkpoints.
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
) -> dict[str, Any]:
    """Returns `loss`, `top1`, `top5` (fractions; top5 with more than 5 classes), `examples`, and what `described` gives.

    Args:
        workdir: Of a run; of several, whose probabilities are averaged, and `step` is then a list.
        step: Of the checkpoint; None is the newest.
        split: Of the data set; None is the config's test split.
        source: The data set, as `config.data.source`; None is the run's. Its classes must be the run's, in the same order.
        data_dir: Where the data set is; None is where the run found it.
        protocol: A name, or a Protocol with its options.
        statistics: Of batch normalization: "moving", or "precise" where they were recomputed.
        batch_size: See `Net.scores`; None is the run's.

    Raises:
        WorkdirError, CheckpointError, DataError, ProtocolError: What was asked for is not there or does not go together.
    """
    trials = open_trials(
        workdir, step=step, split=split, source=source, data_dir=data_dir, statistics=statistics
    )
    counts = Counts(len(trials[0].source.class_names))
    chosen = Protocol(protocol) if isinstance(protocol, str) else protocol
    for scores in all_scores(trials, chosen, batch_size=batch_size):
        counts.add(scores)
    return {**counts.results(), **described(trials, chosen)}


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
) -> Predictions:
    """Returns what a run, or an ensemble of several, says of every example of a split; arguments as `evaluate_checkpoint`.

    Example:
        >>> found = predictions("runs/digits_resnet20")
        >>> wrong = np.flatnonzero(found.predicted != found.labels)
        >>> images, labels, _ = found.source.read(found.numbers[wrong])
        >>> found.counts.results()["top1"], found.counts.confusion
    """
    trials = open_trials(
        workdir, step=step, split=split, source=source, data_dir=data_dir, statistics=statistics
    )
    protocol = Protocol(protocol) if isinstance(protocol, str) else protocol
    numbers, labels, log_probabilities = collect(all_scores(trials, protocol, batch_size=batch_size))
    steps = tuple(trial.checkpoint.step for trial in trials)
    first = trials[0]
    return Predictions(
        numbers, labels, log_probabilities, first.source.class_names, first.source, first.split, steps
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
        trials: Of the nets.
        protocol: What is seen of an image.
        batch_size: See `Net.scores`; None is the run's.
        scored: Is told how many more examples a net has scored.
    """
    return average([_told(trial.scores(protocol, batch_size=batch_size), scored) for trial in trials])


def _told(scores: Iterator[Scores], scored: Callable[[int], object]) -> Iterator[Scores]:
    for part in scores:
        scored(len(part.numbers))
        yield part


def described(trials: Sequence[Trial], protocol: Protocol) -> dict[str, Any]:
    """Returns `step`, a list for an ensemble, `split`, `protocol` and `statistics` of what was evaluated, and their `images`."""
    steps = [trial.checkpoint.step for trial in trials]
    first = trials[0]
    named = {"step": steps[0] if len(trials) == 1 else steps, "split": first.split, "protocol": protocol.name}
    return (
        named
        | {"statistics": first.statistics}
        | ({"statistics_images": first.images} if first.images else {})
    )


def open_trials(
    workdir: Workdirs,
    *,
    step: int | None = None,
    split: str | None = None,
    source: str | None = None,
    data_dir: str | None = None,
    statistics: str = MOVING,
) -> list[Trial]:
    """Returns the checkpoints of one run or of several, ready to be evaluated; see `evaluate_checkpoint`.

    Raises:
        DataError: The nets have different classes, or are evaluated on different examples.
    """
    workdirs = [workdir] if isinstance(workdir, str) or not isinstance(workdir, Sequence) else list(workdir)
    trials = [
        open_trial(each, step=step, split=split, source=source, data_dir=data_dir, statistics=statistics)
        for each in workdirs
    ]
    first = trials[0]
    for other in trials[1:]:
        same = list(other.source.class_names) == list(first.source.class_names) and len(other.source) == len(
            first.source
        )
        if not same:
            raise DataError(
                f"{other.workdir} has {len(other.source.class_names)} classes and {len(other.source)} examples in {other.split}, "
                f"{first.workdir} {len(first.source.class_names)} and {len(first.source)} in {first.split}; an ensemble is of nets "
                "with the same classes, on the same examples"
            )
    return trials


def open_trial(
    workdir: epath.PathLike,
    *,
    step: int | None = None,
    split: str | None = None,
    source: str | None = None,
    data_dir: str | None = None,
    statistics: str = MOVING,
    training: bool = False,
) -> Trial:
    """Returns a checkpoint ready to be evaluated, without a split on its test split, or its `training` split.

    See `evaluate_checkpoint` for the other arguments and what is raised.
    """
    checkpoint, images = with_statistics(workdir, read_checkpoint(workdir, step), statistics)
    config = from_json(checkpoint.config)
    config = with_fields(
        config,
        {
            "run.data_dir": config.run.data_dir if data_dir is None else data_dir,
            "data.source": config.data.source if source is None else source,
            "run.devices": None,  # Those of this machine, which need not be the run's.
            "run.accumulation": 1,
            "run.remat": None,  # There is no backward pass.
        },
    )
    if not config.data.source:
        raise DataError(
            f"the data of this net is not known: {workdir} is an import; name the set to evaluate it on with --data"
        )
    prepare_jax(config)
    split = split or (config.data.train_split if training else config.data.test_split)
    opened = open_split(config, split, test=split == config.data.test_split)
    if len(opened.class_names) != checkpoint.model["num_classes"]:
        raise DataError(
            f"split {split} of {config.data.source} has {len(opened.class_names)} classes, and the net of {workdir} "
            f"{checkpoint.model['num_classes']}; evaluate it on a set with the classes that it was trained on"
        )
    return Trial(
        str(workdir), checkpoint, config, build_net(checkpoint, config), opened, split, statistics, images
    )


def build_net(checkpoint: Checkpoint, config: Config) -> Net:
    """Returns the net of a checkpoint on all devices of this process."""
    model = with_scanned_stages(create_model(**checkpoint.model), config)
    arrays = stack_arrays(checkpoint.arrays) if getattr(model, "scan", False) else checkpoint.arrays
    variables, image_mean = split_variables(arrays)
    return Net(
        model, variables, np.asarray(image_mean), create_mapping(config.run.mapping, jax.local_devices())
    )
