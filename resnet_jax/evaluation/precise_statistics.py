"""Precise batch-norm statistics: a plain average over training images, as the authors released.

The weights stay. The training images, in an order drawn from the run's seed and seen as in evaluation, go
through the net in groups as large as in training, each normalized with its own statistics. Of every layer the
mean and the variance of all images are kept, by the law of total variance the mean of the groups' variances
plus the variance of their means. A group's statistics are those that training computes, and they are added in
float64, so that neither the batch nor the number of devices matters.
"""

import dataclasses
from collections import defaultdict
from functools import cache, partial

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict
from flax.typing import VariableDict
from jaxtyping import Array, UInt8

from resnet_jax.data.augment import normalize
from resnet_jax.data.batches import TrainBatches, read_ahead, reading_threads
from resnet_jax.data.source import Source, read_decodable
from resnet_jax.evaluation.protocols import ProtocolError
from resnet_jax.evaluation.scoring import Scorer
from resnet_jax.evaluation.trial import open_trial
from resnet_jax.models.normalization import freeze_statistics
from resnet_jax.models.stacking import unstack_arrays
from resnet_jax.parallel import AXIS_NAME, Mapping, create_mapping
from resnet_jax.parallel.distributed import fits
from resnet_jax.parallel.mapping import PerDevice, PyTree
from resnet_jax.training.checkpoints import Arrays
from resnet_jax.training.network import frozen_patterns
from resnet_jax.training.stored_statistics import PREFIX, save_precise


@dataclasses.dataclass(frozen=True)
class Recomputed:
    """What was recomputed: the step of the checkpoint, the number of training images, and the file."""

    step: int
    images: int
    file: str


def recompute_batch_statistics(
    workdir: str, *, images: int = 0, step: int | None = None, data_dir: str | None = None
) -> Recomputed:
    """Recomputes the statistics of a checkpoint from training images and stores them beside it.

    Args:
        workdir: Directory of the run.
        images: Number of its training images; 0 is all.
        step: Checkpoint to use. Defaults to the newest.
        data_dir: Directory of the dataset. Defaults to where the run found it.

    Raises:
        ProtocolError: The net has no batch normalization, or the training set has fewer images.
        CheckpointError, DataError: What was asked for is not there.
    """
    trial = open_trial(workdir, step=step, data_dir=data_dir, training=True)
    total = len(trial.source)
    if not trial.scorer.model.normalized:
        raise ProtocolError(
            f"{trial.checkpoint.model['name']} has no batch normalization, and so no statistics to recompute"
        )
    if not 0 <= images <= total:
        raise ProtocolError(
            f"statistics of {images} images are asked for; allowed are 1 to {total}, those of the training "
            "split, or 0 for all"
        )
    batch_size = trial.config.batch_size
    statistics = measure_statistics(
        trial.scorer,
        trial.source,
        images=images or total,
        batch_size=batch_size,
        group_size=trial.config.model.group_size or batch_size,
        seed=trial.config.seed,
        frozen=frozen_patterns(trial.config.optimizer),
        workers=reading_threads(trial.config.run.workers),
    )
    return Recomputed(
        trial.checkpoint.step,
        images or total,
        str(save_precise(workdir, trial.checkpoint, statistics, images=images or total)),
    )


def measure_statistics(
    net: Scorer,
    source: Source,
    *,
    images: int,
    batch_size: int,
    group_size: int,
    seed: int,
    frozen: tuple[str, ...] = (),
    workers: int = 1,
) -> Arrays:
    """Returns mean and variance of every normalization layer over training images, float32, by name.

    Where groups do not divide the images, the last group is smaller and counts for less. Variances are biased
    (divided by N).

    Args:
        net: Network with the weights.
        source: The training split.
        images: Number of images, taken in an order drawn from the seed.
        batch_size: Images that the devices see at once; a multiple of the group.
        group_size: Images that are normalized together.
        seed: Seed of the order.
        frozen: Patterns of the layers whose statistics stay, see `freeze_statistics`.
        workers: Threads that read and decode.
    """
    chosen = TrainBatches(source, batch_size, seed, slice(0, 0)).examples_at(np.arange(images))
    program = cache(partial(_program, net, frozen))
    sums: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(()))
    for batch in read_ahead(
        _Chosen(source, chosen, batch_size), 0, -(-images // batch_size), workers=workers, buffer=2
    ):
        whole = len(batch) // group_size * group_size
        for part, size in ((batch[:whole], group_size), (batch[whole:], len(batch) - whole)):
            if len(part):
                count = next(n for n in range(len(net.mapping.devices), 0, -1) if fits(len(part), size, n))
                mapping, step, placed = program(count, size)
                measured = jax.device_get(step(placed, mapping.shard(part)))
                _add(sums, flatten_dict(measured, sep="/"), len(part))
    statistics = {}
    for name, total in sums.items():
        if name.endswith("/mean"):
            statistics[name] = total / images
            squares = name.removesuffix("mean") + "var"
            statistics[squares] = np.maximum(sums[squares] / images - statistics[name] ** 2, 0)
    named = {f"{PREFIX}{name}": np.asarray(array, np.float32) for name, array in statistics.items()}
    return {name: np.array(array) for name, array in unstack_arrays(named).items()}


@dataclasses.dataclass(frozen=True)
class _Chosen:
    source: Source
    numbers: np.ndarray
    batch_size: int

    @property
    def size(self) -> int:
        return self.batch_size

    def expect(self, number: int) -> None:
        self.source.expect(self._part(number))

    def __getitem__(self, number: int) -> UInt8[np.ndarray, "n h w 3"]:
        return read_decodable(self.source, self._part(number))[0]

    def _part(self, number: int) -> np.ndarray:
        return self.numbers[number * self.batch_size : (number + 1) * self.batch_size]


def _program(
    net: Scorer, frozen: tuple[str, ...], count: int, group_size: int
) -> tuple[Mapping, PerDevice, PyTree]:
    """Returns this many devices, the step that measures groups on them, and its first argument."""
    mapping = create_mapping("auto", net.mapping.devices[:count])
    forgetful = partial(net.model.norm, momentum=0.0, variance="biased")
    norm = partial(freeze_statistics, norm=forgetful, patterns=frozen)
    model = net.model.clone(norm=norm, group_size=group_size, axis_name=AXIS_NAME)
    return (
        mapping,
        mapping.map(partial(_batch_statistics, model), donate=False),
        mapping.replicate((net.variables, net.image_mean)),
    )


def _batch_statistics(model: nn.Module, net: tuple[VariableDict, Array], images: Array) -> VariableDict:
    variables, mean = net
    _, updated = model.apply(variables, normalize(images, mean), train=True, mutable=["batch_stats"])
    return updated["batch_stats"]


def _add(sums: defaultdict[str, np.ndarray], statistics: dict[str, np.ndarray], images: int) -> None:
    """Adds means, and mean squares under the names of the variances, weighted by the number of images."""
    for name, array in statistics.items():
        value = array.astype(np.float64)
        if name.endswith("/var"):
            value = value + statistics[name.removesuffix("var") + "mean"].astype(np.float64) ** 2
        sums[name] = sums[name] + images * value
