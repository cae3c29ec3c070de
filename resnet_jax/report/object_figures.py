"""Mistakes of a detector as they are shown: how many of which kind, and pictures with boxes."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw

from resnet_jax.report.axes import percent
from resnet_jax.report.chart import scrolling
from resnet_jax.report.markup import Markup, element
from resnet_jax.report.mistake_figures import PICTURE_SIDE, picture_uri
from resnet_jax.report.object_mistakes import LEAST_SCORE, ObjectMistakes, ShownObject

AROUND = 2.5
"""Side of a picture, as a multiple of the longer side of its box."""

OBJECT_COLOR, FOUND_COLOR = "#00c853", "#ff1744"
"""Green around an object that is there, red around a box that is wrong."""


def draw_object_mistakes(found: ObjectMistakes, run: str) -> Markup:
    """Returns the numbers of misses and false alarms of a detector, and the worst ones as pictures.

    Args:
        found: Mistakes of the run.
        run: Its name.
    """
    seen = (
        f"{found.images:,} images" if found.images == found.of else f"{found.images:,} of {found.of:,} images"
    )
    share = f" ({percent(found.missed / found.objects)})" if found.objects else ""
    text = (
        f"{found.missed:,} of the {found.objects:,} objects in {seen} of the split {found.split} are missed"
        f"{share} at a score of {LEAST_SCORE} and an IoU of .5, and {sum(found.alarms.values()):,} boxes are "
        f"false alarms, by the checkpoint of step {found.step:,}. Difficult objects and crowds are left out."
    )
    rows = [
        element("tr", element("td", kind), element("td", f"{count:,}"))
        for kind, count in found.alarms.items()
    ]
    head = element("tr", element("th", "false alarm", scope="col"), element("th", "boxes", scope="col"))
    table = element("table", element("thead", head), element("tbody", *rows))
    return element(
        "div",
        element("p", text),
        scrolling(table, f"False alarms of {run}"),
        *_pictures("The worst misses", found.misses, found.class_names),
        *_pictures("The surest false alarms (red; green is the object)", found.surest, found.class_names),
    )


def _pictures(title: str, shown: Sequence[ShownObject], names: Sequence[str]) -> tuple[Markup, ...]:
    if not shown:
        return ()
    items = (element("li", *_picture(one, names)) for one in shown)
    return element("h4", title), element("ul", *items, class_="mistakes")


def _picture(one: ShownObject, names: Sequence[str]) -> tuple[Markup, Markup]:
    missed, name = one.kind == "missed", names[one.label]
    if missed:
        remark = f"found at {100 * one.score:.1f}\u00a0%" if one.score else "not found"
    else:
        beneath = f": {names[one.other]}" if one.other is not None and one.other != one.label else ""
        remark = f"{one.kind}{beneath}"
    score = "" if missed else f" {100 * one.score:.1f}\u00a0%"
    picture = element(
        "img",
        src=picture_uri(draw_boxes(one)),
        alt=f"Image {one.image:,}: {name}, {remark}",
        width=PICTURE_SIDE,
        height=PICTURE_SIDE,
    )
    return picture, element("p", element("b", name), score, element("br"), remark)


def draw_boxes(one: ShownObject) -> np.ndarray:
    """Returns the part of an image around a box, [PICTURE_SIDE, PICTURE_SIDE, 3], black beyond the image."""
    left, top, right, bottom = one.box
    side = max(AROUND * max(right - left, bottom - top), 8.0)
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    picture = PIL.Image.fromarray(one.pixels).transform(
        (PICTURE_SIDE, PICTURE_SIDE),
        PIL.Image.Transform.EXTENT,
        (x, y, x + side, y + side),
        PIL.Image.Resampling.BILINEAR,
    )
    draw = PIL.ImageDraw.Draw(picture)
    missed = one.kind == "missed"
    boxes = [(one.object_box, OBJECT_COLOR), (one.box, OBJECT_COLOR if missed else FOUND_COLOR)]
    for box, color in boxes:
        if box is not None:
            a, b, c, d = (np.asarray(box) - [x, y, x, y]) * PICTURE_SIDE / side
            draw.rectangle((a, b, c - 1, d - 1), outline=color, width=2)
    return np.asarray(picture)
