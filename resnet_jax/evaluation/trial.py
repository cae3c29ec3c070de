"""A checkpoint of a run, opened on a split to be evaluated on, or evaluated by the run's own task."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from etils import epath

from resnet_jax.data.batches import reading_threads
from resnet_jax.data.data_error import DataError
from resnet_jax.data.source import Source
from resnet_jax.evaluation.protocols import Protocol, ProtocolError, look_of
from resnet_jax.evaluation.scoring import Scorer, Scores, restrict_scores
from resnet_jax.inference.stored_model import require_classifier
from resnet_jax.interop.loading import open_source_checkpoint
from resnet_jax.models import create_model
from resnet_jax.models.stacking import stack_arrays
from resnet_jax.parallel import create_mapping
from resnet_jax.training.checkpoints import Checkpoint, from_arrays
from resnet_jax.training.config import Config, from_json, with_fields
from resnet_jax.training.network import prepare_jax, with_scanned_stages
from resnet_jax.training.state import split_variables
from resnet_jax.training.stored_classes import ClassMap, open_labeled_split
from resnet_jax.training.stored_code import lies_within, read_trusted_checkpoint
from resnet_jax.training.stored_statistics import MOVING, with_statistics
from resnet_jax.training.task import build_experiment

Workdirs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""Directory of a run, or the directories of an ensemble."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A checkpoint that is about to be evaluated on a split.

    Attributes:
        workdir: Directory of the run.
        checkpoint: Checkpoint with the requested statistics.
        config: Config of the run, as it is run here.
        scorer: The network, on the devices of this process.
        source: The split.
        split: Its name.
        statistics: "moving" or "precise".
        images: Number of training images behind precise statistics; 0 for moving ones.
        restricted: Labels that may be predicted. None is all.
    """

    workdir: str
    checkpoint: Checkpoint
    config: Config
    scorer: Scorer
    source: Source
    split: str
    statistics: str
    images: int
    restricted: tuple[int, ...] | None = None

    def scores(
        self, protocol: Protocol, *, batch_size: int | None = None, limit: int | None = None
    ) -> Iterator[Scores]:
        """Yields the scores of the split's examples; see `Scorer.scores`.

        Raises:
            ProtocolError: The net takes images of one size, and the protocol shows others.
        """
        side, fixed = self.source.image_shape[0], not self.scorer.model.takes_any_size
        if fixed and any(
            (sight.height, sight.width) != (side, side)
            for sight in look_of(protocol, self.source)(side, side)
        ):
            raise ProtocolError(
                f"{self.checkpoint.model['name']} takes images of {side}×{side} pixels only, for which its "
                f"fully connected layers are made, and the protocol {protocol.name} shows others"
            )
        scores = self.scorer.scores(
            self.source,
            protocol,
            batch_size=batch_size or self.config.batch_size,
            workers=reading_threads(self.config.run.workers),
            limit=limit,
        )
        return scores if self.restricted is None else restrict_scores(scores, self.restricted)


def open_trials(
    workdir: Workdirs,
    *,
    step: int | None = None,
    split: str | None = None,
    source: str | None = None,
    data_dir: str | None = None,
    statistics: str = MOVING,
    class_map: ClassMap | None = None,
    restrict: bool = False,
) -> list[Trial]:
    """Returns the checkpoints of one run or of several, ready to be evaluated; see `evaluate_checkpoint`.

    Raises:
        DataError: The nets have different classes, or are evaluated on different examples.
    """
    trials = [
        open_trial(
            each,
            step=step,
            split=split,
            source=source,
            data_dir=data_dir,
            statistics=statistics,
            class_map=class_map,
            restrict=restrict,
        )
        for each in ([workdir] if isinstance(workdir, str | os.PathLike) else workdir)
    ]
    first = trials[0]
    for other in trials[1:]:
        if list(other.source.class_names) != list(first.source.class_names) or (
            len(other.source) != len(first.source)
        ):
            raise DataError(
                f"{other.workdir} has {len(other.source.class_names)} classes and {len(other.source)} "
                f"examples in {other.split}, "
                f"{first.workdir} {len(first.source.class_names)} and {len(first.source)} in {first.split}; "
                "an ensemble is of nets "
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
    class_map: ClassMap | None = None,
    restrict: bool = False,
    training: bool = False,
) -> Trial:
    """Returns a checkpoint ready to be evaluated, without a split on its test split, or its `training` split.

    See `evaluate_checkpoint` for the other arguments and what is raised.
    """
    checkpoint, images = with_statistics(workdir, open_source_checkpoint(workdir, step), statistics)
    require_classifier(checkpoint, workdir)
    stored = from_json(checkpoint.config)
    config = with_fields(
        stored,
        {
            "run.data_dir": stored.run.data_dir if data_dir is None else data_dir,
            "data.source": stored.data.source if source is None else source,
            "run.devices": None,  # Those of this machine, which need not be the run's.
            "run.accumulation": 1,
            "run.remat": None,  # There is no backward pass.
        },
    )
    prepare_jax(config)
    split = split or (config.data.train_split if training else config.data.test_split)
    opened = open_labeled_split(
        checkpoint,
        config,
        split,
        test=split == config.data.test_split,
        class_map=class_map,
        own_data=source is None,
    )
    return Trial(
        str(workdir),
        checkpoint,
        config,
        build_scorer(checkpoint, config),
        opened,
        split,
        statistics,
        images,
        _present(opened) if restrict else None,
    )


def _present(source: Source) -> tuple[int, ...] | None:
    """Returns the labels that have examples; None if all have."""
    present = np.unique(source.labels)
    return None if len(present) == len(source.class_names) else tuple(map(int, present))


def build_scorer(checkpoint: Checkpoint, config: Config) -> Scorer:
    """Returns the net of a checkpoint on all devices of this process."""
    model = with_scanned_stages(create_model(**checkpoint.model), config)
    variables, image_mean = split_variables(
        stack_arrays(checkpoint.arrays) if model.scanned else checkpoint.arrays
    )
    return Scorer(
        model, variables, np.asarray(image_mean), create_mapping(config.run.mapping, jax.local_devices())
    )


def evaluate_by_task(
    workdir: epath.PathLike,
    *,
    step: int | None = None,
    data_dir: str | None = None,
    changes: Mapping[str, object] | None = None,
) -> dict[str, float]:
    """Returns the metrics of the test split that the run's task computes, and `step`.

    Args:
        workdir: Directory of the run.
        step: Checkpoint to evaluate. Defaults to the newest.
        data_dir: Directory of the dataset. Defaults to the run's.
        changes: Other values of the run's fields.
    """
    checkpoint = read_trusted_checkpoint(workdir, step, whole_task=True)
    config = from_json(checkpoint.config)
    code_dir = None if lies_within(config.run.code_dir, workdir) else config.run.code_dir
    own = {"run.devices": None, "run.data_dir": data_dir or config.run.data_dir, "run.code_dir": code_dir}
    config = with_fields(config, {**own, **(changes or {})})
    prepare_jax(config)
    experiment = build_experiment(config, begun=workdir)
    state = experiment.mapping.replicate(from_arrays(experiment.initial_state(), checkpoint.arrays))
    return {**experiment.test(state), "step": checkpoint.step}
