"""Mistakes as they are shown: the confusion matrix, the pairs that are confused most, and pictures."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from resnet_jax.evaluation.counts import frequent_mistakes
from resnet_jax.report.axes import percent
from resnet_jax.report.chart import scrolling
from resnet_jax.report.markup import Markup, element
from resnet_jax.report.mistakes import Mistake, Mistakes

MATRIX_CLASSES = 30
"""Classes from which on the matrix is left out."""
PAIRS = 10
PICTURE_SIDE = 128
"""Pixels of a picture's side at most."""


def draw_mistakes(found: Mistakes, run: str) -> Markup:
    """Returns the confusion, the pairs that are confused most, and the surest mistakes of a run.

    Args:
        found: Mistakes of the run.
        run: Its name.
    """
    wrong, count = int(found.wrong.sum()), int(found.confusion.sum())
    seen = (
        f"{count:,} images" if count == found.of else f"{count:,} of the {found.of:,} images, spread evenly,"
    )
    share = percent(wrong / count)
    text = (
        f"{wrong:,} of {seen} of the split {found.split} are mistaken ({share}), by the checkpoint of step "
    )
    parts = [_matrix(found, run)] if len(found.class_names) <= MATRIX_CLASSES else []
    parts += [_pairs(found, run)] if wrong else []
    pictures = [element("li", *_picture(mistake, found.class_names)) for mistake in found.surest]
    return element(
        "div",
        element("p", f"{text}{found.step:,}."),
        element("div", *parts, class_="pairs"),
        element("h4", "The mistakes that it was surest of") if pictures else None,
        element("ul", *pictures, class_="mistakes") if pictures else None,
    )


def _matrix(found: Mistakes, run: str) -> Markup:
    """Returns the confusion matrix, colored by the share of the class or, of a mistake, of the worst one."""
    names, most = found.class_names, max(1, int(found.wrong.max()))
    turned = "turned" if max(map(len, names)) > 3 else None
    head = element(
        "tr",
        element("td"),
        *(element("th", element("span", name, class_=turned), scope="col") for name in names),
    )
    rows = []
    for label, row in enumerate(found.confusion.tolist()):
        shares = [
            count / max(1, sum(row)) if label == place else count / most for place, count in enumerate(row)
        ]
        cells = [
            _cell(count, share, right=label == place)
            for place, (count, share) in enumerate(zip(row, shares, strict=True))
        ]
        rows.append(element("tr", element("th", names[label], scope="row"), *cells))
    table = element("table", element("thead", head), element("tbody", *rows), class_="matrix")
    how = element("p", "Rows: the true class. Columns: what it is taken for.", class_="note")
    return element(
        "div", element("h4", "Confusion matrix"), how, scrolling(table, f"Confusion matrix of {run}")
    )


def _cell(count: int, share: float, *, right: bool) -> Markup:
    if not count:
        return element("td")
    return element("td", f"{count:,}", class_="right" if right else "wrong", style=f"--share:{share:.2f}")


def _pairs(found: Mistakes, run: str) -> Markup:
    names = found.class_names
    rows = []
    for true, taken, count in frequent_mistakes(found.confusion, PAIRS):
        cells = (names[true], names[taken], f"{count:,} of {found.confusion[true].sum():,}")
        rows.append(element("tr", *(element("td", text) for text in cells)))
    head = element("tr", *(element("th", text, scope="col") for text in ("true", "taken for", "images")))
    table = element("table", element("thead", head), element("tbody", *rows))
    return element(
        "div", element("h4", "Most frequent mistakes"), scrolling(table, f"Most frequent mistakes of {run}")
    )


def _picture(mistake: Mistake, names: Sequence[str]) -> tuple[Markup, Markup]:
    height, width = mistake.pixels.shape[:2]
    true, taken = names[mistake.label], names[mistake.predicted]
    picture = element(
        "img",
        src=picture_uri(mistake.pixels),
        alt=f"Example {mistake.number:,}: {true}, taken for {taken}",
        width=width,
        height=height,
        class_="small" if max(height, width) < PICTURE_SIDE else None,
    )
    return picture, element(
        "p", element("b", taken), f" {100 * mistake.confidence:.1f}\u00a0%", element("br"), f"true: {true}"
    )


def picture_uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """Returns a picture as a data URI of a PNG, its longer side at most `PICTURE_SIDE` pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
