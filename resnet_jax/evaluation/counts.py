"""Loss, top-1, top-5, figures of each class and the confusion matrix; every example counts once."""

from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float, Int

from resnet_jax.evaluation.scoring import Scores

TOP = 5


class Figures(TypedDict):
    """Means over all examples, and their number; `top5` for more than five classes.

    `balanced_accuracy` and `macro_f1` are means over the classes that have examples.
    """

    loss: float
    top1: float
    top5: NotRequired[float]
    balanced_accuracy: float
    macro_f1: float
    examples: int


class Counts:
    """Exact counts of scores that come in parts.

    Attributes:
        confusion: int64[classes, classes]: of the examples of each label (row), how many are taken for each
            class (column).
    """

    def __init__(self, classes: int) -> None:
        self.confusion: Int[np.ndarray, "classes classes"] = np.zeros((classes, classes), np.int64)
        self._loss = 0.0
        self._among_top = np.zeros(classes, np.int64)

    def add(self, scores: Scores) -> None:
        """Counts some examples."""
        ranks = ranks_of_labels(scores)
        np.add.at(self.confusion, (scores.labels, predicted(scores)), 1)
        np.add.at(self._among_top, scores.labels, ranks < TOP)
        self._loss -= float(scores.log_probabilities[np.arange(len(ranks)), scores.labels].sum())

    def results(self) -> Figures:
        """Returns the figures of all examples that were added."""
        examples = int(self.confusion.sum())
        loss, top1 = self._loss / examples, float(self.confusion.trace() / examples)
        figures: Figures = {
            "loss": loss,
            "top1": top1,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "examples": examples,
        }
        if len(self.confusion) > TOP:
            figures["top5"] = float(self._among_top.sum() / examples)
        return figures

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the accuracies of the classes that have examples: each class counts the same."""
        examples = self.confusion.sum(axis=1)
        present = examples > 0
        return float((self.confusion.diagonal()[present] / examples[present]).mean())

    @property
    def macro_f1(self) -> float:
        """Mean over the classes that have examples of F1 = 2 · precision · recall / (precision + recall)."""
        right, examples = self.confusion.diagonal(), self.confusion.sum(axis=1)
        present = examples > 0
        both = examples + self.confusion.sum(axis=0)
        return float((2 * right[present] / both[present]).mean())

    def per_class(self) -> list[dict[str, float | None]]:
        """Returns `label`, `examples`, `top1` and `top5` of each class; None for a class without examples."""
        rows = []
        for label, (row, among) in enumerate(zip(self.confusion, self._among_top, strict=True)):
            examples = int(row.sum())
            figures = {"top1": float(row[label] / examples) if examples else None}
            if len(self.confusion) > TOP:
                figures["top5"] = float(among / examples) if examples else None
            rows.append({"label": label, "examples": examples, **figures})
        return rows


def ranks_of_labels(scores: Scores) -> Int[np.ndarray, " n"]:
    """Returns how many other classes score at least as high as the label; NaN counts as higher."""
    values = scores.log_probabilities
    return np.sum(~(values < np.take_along_axis(values, scores.labels[:, None], axis=1)), axis=1) - 1


def predicted(scores: Scores) -> Int[np.ndarray, " n"]:
    """Returns the likeliest class of every example; the label only if it is likelier than all others."""
    others = scores.log_probabilities.copy()
    np.put_along_axis(others, scores.labels[:, None], -np.inf, axis=1)
    return np.where(ranks_of_labels(scores) < 1, scores.labels, np.nan_to_num(others, nan=np.inf).argmax(1))


def top_classes(
    log_probabilities: Float[np.ndarray, "n classes"], count: int = TOP
) -> Int[np.ndarray, "n k"]:
    """Returns the likeliest classes of every example, the likeliest first; of equals, the first."""
    return np.argsort(-log_probabilities, axis=1, kind="stable")[:, :count]


def frequent_mistakes(confusion: Int[np.ndarray, "c c"], most: int) -> list[tuple[int, int, int]]:
    """Returns label, prediction and count of the most frequent mistakes; of equals, the first."""
    wrong = confusion - np.diag(np.diag(confusion))
    places = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(wrong)) for place in places if wrong.flat[place]]
    return [(label, taken, int(wrong[label, taken])) for label, taken in pairs]
