"""What a net takes for what: the confusion matrix, the pairs that it confuses, and the mistakes that it was surest of."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from resnet_jax.report.chart import scrolling
from resnet_jax.report.markup import Markup, element
from resnet_jax.report.predictions import Predictions

MATRIX = 30
"""Classes from which on only the most confused pairs are shown."""
PAIRS = 10
MISTAKES = 12
SIDE = 128
"""Pixels of a picture's side at most."""


def draw_mistakes(predictions: Predictions, run: str) -> Markup:
    """Returns the confusion, the confused pairs and the surest mistakes of a run.

    Args:
        predictions: Of the run.
        run: Its name.
    """
    wrong, count = int(predictions.wrong.sum()), len(predictions.labels)
    seen = f"{count:,} images" if count == predictions.of else f"{count:,} of the {predictions.of:,} images, spread evenly,"
    text = f"{wrong:,} of {seen} of the split {predictions.split} are mistaken, by the checkpoint of step {predictions.step:,}."
    matrix, names = predictions.confusion(), predictions.class_names
    parts = [_matrix(matrix, names, run)] if len(names) <= MATRIX else []
    parts += [_pairs(matrix, names, run)] if wrong else []
    return element("div", element("p", text), element("div", *parts, class_="pairs"), _surest(predictions) if wrong else None)


def _matrix(matrix: Int[np.ndarray, "c c"], names: Sequence[str], run: str) -> Markup:
    """Returns the confusion matrix; the colour of the diagonal is the share of the class, of a mistake its share of the worst."""
    turned = "turned" if max(map(len, names)) > 3 else ""
    columns = [element("th", element("span", name, class_=turned or None), scope="col") for name in names]
    head = element("tr", element("td"), *columns)
    most_wrong = max(1, int((matrix - np.diag(np.diag(matrix))).max(initial=0)))
    rows = []
    for label, row in enumerate(matrix.tolist()):
        shares = [count / max(1, sum(row)) if label == place else count / most_wrong for place, count in enumerate(row)]
        cells = [
            element("td", count or "", class_="right" if label == place else "wrong", style=f"--share:{share:.2f}")
            if count
            else element("td")
            for place, (count, share) in enumerate(zip(row, shares, strict=True))
        ]
        rows.append(element("tr", element("th", names[label], scope="row"), *cells))
    table = element("table", element("thead", head), element("tbody", *rows), class_="matrix")
    how = element("p", "Rows: the true class. Columns: what it is taken for.", class_="note")
    return element("div", element("h4", "Confusion matrix"), how, scrolling(table, f"Confusion matrix of {run}"))


def _pairs(matrix: Int[np.ndarray, "c c"], names: Sequence[str], run: str) -> Markup:
    """Returns the most frequent mistakes."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [(int(place // len(names)), int(place % len(names))) for place in order if wrong.flat[place]]
    rows = [
        element(
            "tr",
            element("td", names[true]),
            element("td", names[said]),
            element("td", f"{wrong[true, said]:,} of {matrix[true].sum():,}"),
        )
        for true, said in pairs
    ]
    head = element("tr", *(element("th", text, scope="col") for text in ("true", "taken for", "images")))
    table = element("table", element("thead", head), element("tbody", *rows))
    return element("div", element("h4", "Most frequent mistakes"), scrolling(table, f"Most frequent mistakes of {run}"))


def _surest(predictions: Predictions) -> Markup:
    """Returns the pictures of the mistakes with the greatest confidence."""
    items = []
    for place in predictions.surest_mistakes(MISTAKES).tolist():
        true, said = (predictions.class_names[labels[place]] for labels in (predictions.labels, predictions.predicted))
        pixels = predictions.image(place)
        picture = element(
            "img",
            src=picture_uri(pixels),
            alt=f"Example {predictions.numbers[place]:,}: {true}, taken for {said}",
            width=pixels.shape[1],
            height=pixels.shape[0],
            class_="small" if max(pixels.shape[:2]) < SIDE else None,
        )
        sure = f"{100 * predictions.confidences[place]:.1f} %"
        items.append(element("li", picture, element("p", element("b", said), f" {sure}", element("br"), f"true: {true}")))
    return element("div", element("h4", "The mistakes that it was surest of"), element("ul", *items, class_="mistakes"))


def picture_uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """Returns a picture as a data URI of a PNG, its longer side at most `SIDE` pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
