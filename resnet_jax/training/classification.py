"""The task of classifying images, as in the paper."""

from collections.abc import Sequence

from resnet_jax.training.image_task import ImageTask
from resnet_jax.training.logging import Record
from resnet_jax.training.step import accuracy, masked_sums
from resnet_jax.training.task import Curve


def classification_task() -> ImageTask:
    """Returns the task of learning one label of several for every image, judged by the top-1 accuracy."""
    return ImageTask(
        measures=accuracy,
        sums=masked_sums,
        score="top1",
        line=_line,
        curve=Curve("top1", "test_top1", "error (%)", lambda accuracy: 100 * (1 - accuracy), 2.0),
        summary=_summary,
    )


def _line(record: Record) -> str:
    text = f"loss {record['loss']:.4f}, accuracy {record['top1']:.1%}"
    return text + (f", test accuracy {record['test_top1']:.2%}" if "test_top1" in record else "")


def _summary(tested: Sequence[Record]) -> str:
    last, best = tested[-1], max(tested, key=lambda record: record["test_top1"])
    return (
        f"test accuracy {last['test_top1']:.2%} at step {last['step']:.0f} on "
        f"{last['test_examples']:.0f} images (best saved: {best['test_top1']:.2%} at step "
        f"{best['step']:.0f})"
    )
