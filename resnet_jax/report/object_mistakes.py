"""What a detector misses on its test split, and what it finds that is not there."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from resnet_jax.data.data_error import DataError
from resnet_jax.detection.average_precision import pairwise_iou
from resnet_jax.detection.object_source import ObjectSource
from resnet_jax.detection.open_objects import open_objects
from resnet_jax.detection.rows import Found, Truth, join_rows, truth_of
from resnet_jax.detection.trained_detector import TrainedDetector
from resnet_jax.interop.loading import load_source
from resnet_jax.report.mistakes import SUREST, spread

LEAST_SCORE = 0.5
"""Score from which on a box counts as found: that of `detect`."""

OVERLAP = 0.5
"""IoU with an object that a box must exceed to be right: that of `mAP50`."""

NEAR = 0.1
"""IoU with an object of its class from which on a box is badly placed, and not on the background."""

RIGHT, UNNEEDED, DUPLICATE, PLACE, CLASS, BACKGROUND = JUDGMENTS = (
    "right",
    "optional",
    "found twice",
    "badly placed",
    "another class",
    "nothing there",
)
"""What a box can be; those from the third on are false alarms. Optional are difficult objects and crowds."""


@dataclasses.dataclass(frozen=True)
class ShownObject:
    """A missed object or a false alarm.

    Attributes:
        image: Number of the image in its split.
        label: Class of the object, or of the false alarm.
        score: Score of the false alarm, or of the box that is right for the missed object; 0 without one.
        kind: One of JUDGMENTS; of a missed object "missed".
        other: Class of the object beneath a false alarm; None if there is none.
        pixels: The image.
        box: Edges in pixels.
        object_box: Edges of the object beneath a false alarm; None if there is none.
    """

    image: int
    label: int
    score: float
    kind: str
    other: int | None
    pixels: UInt8[np.ndarray, "h w 3"]
    box: Float[np.ndarray, "4"]
    object_box: Float[np.ndarray, "4"] | None


@dataclasses.dataclass(frozen=True)
class ObjectMistakes:
    """Mistakes of a detector on a split, summarized.

    Attributes:
        class_names: By label.
        split: Its name.
        images: Number of images that were looked at.
        of: Number of images in the split.
        step: Step of the checkpoint.
        objects: Number of objects that must be found.
        missed: Number of those that were not.
        alarms: Numbers of false alarms by kind.
        misses: Missed objects, those with the lowest score first, and of equal ones the largest.
        surest: False alarms, those with the greatest score first.
    """

    class_names: Sequence[str]
    split: str
    images: int
    of: int
    step: int
    objects: int
    missed: int
    alarms: dict[str, int]
    misses: tuple[ShownObject, ...]
    surest: tuple[ShownObject, ...]


def find_object_mistakes(workdir: str, *, examples: int, data_dir: str | None = None) -> ObjectMistakes:
    """Returns the mistakes of the newest checkpoint of a detector's run on its test split.

    Args:
        workdir: Directory of the run.
        examples: Images at most, spread evenly over the split; 0 is all.
        data_dir: Directory of the dataset. Defaults to where the run found it.

    Raises:
        CheckpointError, ConfigError, DataError, ModelError: The net or the data is not there.
    """
    detector = load_source(workdir, None)
    if not isinstance(detector, TrainedDetector) or detector.config.detection.part == "rpn":
        raise DataError("it names no classes of boxes")
    config = detector.config
    source = open_objects(
        str(config.data.source), config.data.test_split, data_dir=data_dir or config.run.data_dir
    )
    chosen = spread(len(source), examples)
    pixels = (source.image(int(number)) for number in chosen)
    each = detector.detect_each(pixels, count=len(chosen), threshold=0.0)
    found = join_rows(
        [
            Found(np.full(len(one), number), one.boxes, one.scores, one.labels)
            for number, one in zip(chosen, each, strict=True)
        ]
    )
    truth = truth_of(source)
    kinds, beneath = judge(found, truth)
    seen = np.isin(truth.example, chosen) & ~(truth.difficult | truth.crowd)
    scores = np.zeros(len(seen))
    scores[beneath[kinds == RIGHT]] = found.score[kinds == RIGHT]
    missed = np.flatnonzero(seen & (scores < LEAST_SCORE))
    alarms = np.flatnonzero((found.score >= LEAST_SCORE) & np.isin(kinds, JUDGMENTS[2:]))
    return ObjectMistakes(
        class_names=detector.class_names or tuple(map(str, range(detector.detector.classes))),
        split=config.data.test_split,
        images=len(chosen),
        of=len(source),
        step=detector.step,
        objects=int(seen.sum()),
        missed=len(missed),
        alarms={kind: int((kinds[alarms] == kind).sum()) for kind in JUDGMENTS[2:]},
        misses=_misses(source, truth, scores, missed[np.lexsort((-truth.area[missed], scores[missed]))]),
        surest=_alarms(
            source,
            found,
            truth,
            kinds,
            beneath,
            alarms[np.argsort(-found.score[alarms], kind="stable")],
        ),
    )


def judge(found: Found, truth: Truth) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
    """Returns what every detection is, one of JUDGMENTS, and the number of the object beneath it, or -1.

    The likeliest detections of an image choose first, as in `voc`.
    """
    members: dict[int, list[int]] = {}
    for number, image in enumerate(truth.example.tolist()):
        members.setdefault(image, []).append(number)
    kinds = np.full(len(found.score), BACKGROUND, dtype="U16")
    beneath = np.full(len(found.score), -1)
    taken = np.zeros(len(truth.label), bool)
    for row in np.argsort(-found.score, kind="stable"):
        of_image = np.array(members.get(int(found.example[row]), []), int)
        if not len(of_image):
            continue
        overlaps = pairwise_iou(found.box[row : row + 1], truth.box[of_image])[0]
        same = np.where(truth.label[of_image] == found.label[row], overlaps, -1.0)
        best, nearest = int(same.argmax()), int(overlaps.argmax())
        number = of_image[best]
        if same[best] > OVERLAP:
            optional = truth.difficult[number] or truth.crowd[number]
            kinds[row] = UNNEEDED if optional else DUPLICATE if taken[number] else RIGHT
            taken[number] = True
        elif overlaps[nearest] > OVERLAP:
            kinds[row], number = CLASS, of_image[nearest]
        elif same[best] > NEAR:
            kinds[row] = PLACE
        else:
            continue
        beneath[row] = number
    return kinds, beneath


def _misses(
    source: ObjectSource, truth: Truth, scores: Float[np.ndarray, " m"], chosen: Int[np.ndarray, " k"]
) -> tuple[ShownObject, ...]:
    return tuple(
        ShownObject(
            image=int(truth.example[number]),
            label=int(truth.label[number]),
            score=float(scores[number]),
            kind="missed",
            other=None,
            pixels=source.image(int(truth.example[number])),
            box=truth.box[number],
            object_box=None,
        )
        for number in chosen[:SUREST]
    )


def _alarms(
    source: ObjectSource,
    found: Found,
    truth: Truth,
    kinds: np.ndarray,
    beneath: Int[np.ndarray, " n"],
    chosen: Int[np.ndarray, " k"],
) -> tuple[ShownObject, ...]:
    return tuple(
        ShownObject(
            image=int(found.example[row]),
            label=int(found.label[row]),
            score=float(found.score[row]),
            kind=str(kinds[row]),
            other=int(truth.label[beneath[row]]) if beneath[row] >= 0 else None,
            pixels=source.image(int(found.example[row])),
            box=found.box[row],
            object_box=truth.box[beneath[row]] if beneath[row] >= 0 else None,
        )
        for row in chosen[:SUREST]
    )
