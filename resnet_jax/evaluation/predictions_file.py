"""Predictions of a split's examples as a file: CSV for people and spreadsheets, NPZ for programs."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from resnet_jax.evaluation.counts import TOP, predicted, top_classes
from resnet_jax.evaluation.protocols import ProtocolError
from resnet_jax.evaluation.scoring import Scores
from resnet_jax.files import as_path, write_bytes


class PredictionsFile:
    """Gathers predictions as scores come, and writes them in the order of the examples, whole or not at all.

    A CSV has the columns `index`, `label`, `prediction`, and `class1`, `probability1` to `class5`,
    `probability5`, the likeliest first; numbers of classes, from 0. An NPZ has the arrays `index`, `label`,
    `prediction` int64[N], `classes` int64[N, 5], `probabilities` float32[N, 5] and `class_names`. With fewer
    than five classes, all are given.

    Args:
        path: Path of the file; its name ends in .csv or .npz.

    Raises:
        ProtocolError: It does not, or its folder does not exist.
    """

    def __init__(self, path: str) -> None:
        self._path = as_path(path)
        if self._path.suffix not in (".csv", ".npz"):
            raise ProtocolError(f"the file of predictions is {path!r}; its name must end in .csv or .npz")
        if not self._path.parent.exists():
            raise ProtocolError(
                f"there is no folder {self._path.parent} for the file of predictions {path}; make it first"
            )
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, scores: Scores) -> None:
        """Takes the predictions of some examples."""
        classes = top_classes(scores.log_probabilities, TOP)
        probabilities = np.exp(np.take_along_axis(scores.log_probabilities, classes, axis=1)).astype(
            np.float32
        )
        self._parts.append((scores.numbers, scores.labels, predicted(scores), classes, probabilities))

    def write(self, class_names: Sequence[str]) -> None:
        """Writes the file."""
        columns = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        order = np.argsort(columns[0])
        index, label, prediction, classes, probabilities = (column[order] for column in columns)
        buffer = io.BytesIO()
        if self._path.suffix == ".npz":
            np.savez(
                buffer,
                index=index,
                label=label,
                prediction=prediction,
                classes=classes,
                probabilities=probabilities,
                class_names=np.array(list(class_names)),
            )
        else:
            text = io.TextIOWrapper(buffer, encoding="utf-8", newline="", write_through=True)
            rows = csv.writer(text, lineterminator="\n")
            pairs = [
                name
                for rank in range(1, classes.shape[1] + 1)
                for name in (f"class{rank}", f"probability{rank}")
            ]
            rows.writerow(["index", "label", "prediction", *pairs])
            for *known, its, values in zip(index, label, prediction, classes, probabilities, strict=True):
                rows.writerow(
                    [
                        *known,
                        *(
                            cell
                            for pair in zip(its, map("{:.6g}".format, values), strict=True)
                            for cell in pair
                        ),
                    ]
                )
        write_bytes(self._path, buffer.getvalue())
