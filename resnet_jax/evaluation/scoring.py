"""A network's scores of every example: views are gathered into batches of one shape, and averaged."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from flax.typing import VariableDict
from jax import lax
from jaxtyping import Array, Float, Int

from resnet_jax.data.augment import normalize
from resnet_jax.data.batches import read_ahead
from resnet_jax.data.data_error import DataError
from resnet_jax.data.source import Source
from resnet_jax.evaluation.protocols import LOGITS, SOFTMAX, Protocol, SeenExamples, look_of, means_of
from resnet_jax.models.sliced_apply import apply_in_slices
from resnet_jax.parallel import AXIS_NAME, Mapping
from resnet_jax.parallel.mapping import PerDevice, PyTree

_AHEAD = 32  # Examples that are read ahead at least.


class Scores(NamedTuple):
    """Scores of some examples.

    Attributes:
        numbers: Numbers of the examples in their split.
        labels: Labels of these examples.
        log_probabilities: Natural logarithms of the averaged probabilities.
    """

    numbers: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    log_probabilities: Float[np.ndarray, "n classes"]


def make_scoring_step(model: nn.Module, *, average: str, mirrored: bool, axis_name: str) -> PerDevice:
    """Returns `scoring_step((variables, mean), views) -> scores [global batch, classes]`.

    `views` is a device's part, uint8[n, v, h, w, 3], v views of one shape of each of n examples. The net is
    fully convolutional up to its pool: of a view of any size it takes the mean of the last map. Since the
    head is linear, that is the map of class scores that the head gives at every place, averaged. The scores
    are, up to a constant for each example, logarithms of the softmax that is averaged over views, or averaged
    logits.

    Args:
        model: Gives logits; without a mapped axis.
        average: "softmax" or "logits".
        mirrored: See each view in the mirror too.
        axis_name: Mapped axis of the global batch.
    """

    def scoring_step(net: tuple[VariableDict, Array], views: Array) -> Array:
        variables, mean = net
        images = normalize(views, mean)
        if mirrored:
            images = jnp.concatenate([images, images[:, :, :, ::-1]], axis=1)
        logits = apply_in_slices(model, variables, images.reshape(-1, *images.shape[2:]))
        logits = logits.reshape(*images.shape[:2], -1)
        if average == LOGITS:
            scores = logits.mean(1)
        elif images.shape[1] == 1:
            scores = logits[:, 0]  # As exact as they are: equal ones are told from nearly equal ones.
        else:
            scores = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1)
        return lax.all_gather(scores, axis_name, tiled=True)

    return scoring_step


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A net and the devices that it is evaluated on, those of this process.

    Attributes:
        model: Gives logits.
        variables: Variables of the model, in host memory.
        image_mean: Subtracted from images, [H, W, 3] or [3].
        mapping: Mapping over the devices.
        programs: The scoring steps that were compiled, by average and mirror.
    """

    model: nn.Module
    variables: VariableDict
    image_mean: Float[np.ndarray, "..."]
    mapping: Mapping
    programs: dict[tuple[str, bool], PerDevice] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    def program(self, *, average: str, mirrored: bool) -> PerDevice:
        """Returns the mapped scoring step, compiled once for every shape; see `make_scoring_step`."""
        if (average, mirrored) not in self.programs:
            self.programs[average, mirrored] = self.mapping.map(
                make_scoring_step(self.model, average=average, mirrored=mirrored, axis_name=AXIS_NAME),
                donate=False,
            )
        return self.programs[average, mirrored]

    def scores(
        self,
        source: Source,
        protocol: Protocol,
        *,
        batch_size: int,
        workers: int = 1,
        limit: int | None = None,
    ) -> Iterator[Scores]:
        """Yields the scores of every example of a split; in order if all views are of one shape.

        Args:
            source: The split.
            protocol: What is seen of an image, and how views are averaged.
            batch_size: Images of the source's shape whose pixels are as many as those of a batch of views.
            workers: Threads that read and decode.
            limit: Score only this many examples, the first ones.

        Raises:
            DataError: An image cannot be decoded and is not to be skipped, or all are skipped.
        """
        count = min(len(source), limit or len(source))
        batcher = _Batcher(
            self,
            protocol,
            means_of(self.image_mean, source, protocol),
            pixels=batch_size * source.image_shape[0] * source.image_shape[1],
            most=min(batch_size, count),
        )
        examples = SeenExamples(source, look_of(protocol, source))
        for number, label, stacks in read_ahead(
            examples, 0, count, workers=workers, buffer=max(_AHEAD, 2 * workers)
        ):
            yield from batcher.add(number, label, stacks)
        yield from batcher.rest()


def examples_at_once(stack: tuple[int, ...], pixels: int, *, sides: int, most: int, devices: int) -> int:
    """Returns the examples in a batch, a multiple of the devices.

    Args:
        stack: Views of an example, height and width.
        pixels: Approximate number of pixels in a batch.
        sides: 2 where every view is seen in the mirror too, else 1.
        most: Largest number of examples in a batch.
        devices: Number of devices that share the batch.
    """
    views, height, width = stack
    size = min(max(1, pixels // (views * sides * height * width)), most)
    return -(-size // devices) * devices


@dataclasses.dataclass
class _Open:
    label: int
    views: int
    left: int
    total: Float[np.ndarray, " classes"] | None = None


class _Batcher:
    # Fills batches of one shape while the devices score the batch before, and sums scores by example.

    def __init__(
        self,
        net: Scorer,
        protocol: Protocol,
        mean: Callable[[tuple[int, int]], np.ndarray],
        *,
        pixels: int,
        most: int,
    ) -> None:
        self._step = net.program(average=protocol.average, mirrored=protocol.both)
        self._mapping, self._devices = net.mapping, len(net.mapping.devices)
        self._variables = net.mapping.replicate(net.variables)
        self._mean = mean
        self._means: dict[tuple[int, int], PyTree] = {}
        self._softmax = protocol.average == SOFTMAX
        self._pixels, self._most, self._sides = pixels, most, 2 if protocol.both else 1
        self._open: dict[int, _Open] = {}
        self._waiting: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = defaultdict(list)
        self._flying: tuple[list[int], int, Array] | None = None

    def add(self, number: int, label: int, stacks: dict[tuple[int, int], np.ndarray]) -> Iterator[Scores]:
        """Takes the views of an example, by shape, and yields the scores that have come in."""
        views = sum(map(len, stacks.values()))
        self._open[number] = _Open(label, views, left=views)
        for shape, stack in stacks.items():
            self._waiting[shape].append((number, stack))
            if len(self._waiting[shape]) == self._size(stack):
                yield from self._dispatch(shape)

    def rest(self) -> Iterator[Scores]:
        """Scores what is left over."""
        if not self._waiting and not self._means:
            raise DataError("no image of the split can be decoded")
        for shape in list(self._waiting):
            yield from self._dispatch(shape)
        yield from self._land()

    def _size(self, stack: np.ndarray) -> int:
        return examples_at_once(
            stack.shape[:3], self._pixels, sides=self._sides, most=self._most, devices=self._devices
        )

    def _dispatch(self, shape: tuple[int, int]) -> Iterator[Scores]:
        waiting = self._waiting.pop(shape)
        numbers, stacks = [number for number, _ in waiting], [stack for _, stack in waiting]
        # Filled up, so that a shape is one program.
        views = np.zeros((self._size(stacks[0]), *stacks[0].shape), np.uint8)
        np.stack(stacks, out=views[: len(stacks)])
        placed = self._mapping.shard(views)
        if shape not in self._means:
            self._means[shape] = self._mapping.replicate(self._mean(shape))
        # No two are under way, which the CPU's collectives need; the host reads on meanwhile.
        yield from self._land()
        self._flying = numbers, len(stacks[0]), self._step((self._variables, self._means[shape]), placed)

    def _land(self) -> Iterator[Scores]:
        if self._flying is None:
            return
        numbers, views, scores = self._flying
        self._flying = None
        rows = np.asarray(jax.device_get(scores), np.float64)[: len(numbers)]
        if self._softmax:
            rows = scipy.special.log_softmax(rows, axis=1) + np.log(views)
        else:
            rows *= views
        done = []
        for number, row in zip(numbers, rows, strict=True):
            example = self._open[number]
            add = np.logaddexp if self._softmax else np.add
            example.total = row if example.total is None else add(example.total, row)
            example.left -= views
            if not example.left:
                done.append(number)
        if done:
            finished = [self._open.pop(number) for number in done]
            totals = np.stack([np.asarray(example.total) for example in finished])
            counts = np.array([example.views for example in finished])[:, None]
            yield Scores(
                np.array(done),
                np.array([example.label for example in finished]),
                totals - np.log(counts)
                if self._softmax
                else scipy.special.log_softmax(totals / counts, axis=1),
            )


def restrict_scores(scores: Iterator[Scores], labels: Sequence[int]) -> Iterator[Scores]:
    """Yields scores with the probability of all other labels 0, and that of these scaled to sum to 1."""
    for part in scores:
        kept = np.full_like(part.log_probabilities, -np.inf)
        chosen = part.log_probabilities[:, list(labels)]
        highest = chosen.max(axis=1, keepdims=True)
        total = highest + np.log(np.exp(chosen - highest).sum(axis=1, keepdims=True))
        kept[:, list(labels)] = chosen - total
        yield part._replace(log_probabilities=kept)
