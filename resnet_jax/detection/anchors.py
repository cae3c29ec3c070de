"""Anchors: boxes at every place of a map, which proposals are made of (arXiv 1506.01497, §3.1.1)."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Edges = tuple[float, float, float, float]


def make_cell(sizes: Sequence[float], ratios: Sequence[float]) -> tuple[Edges, ...]:
    """Returns the anchors of a place around the point 0, 0: for every size, all ratios of height to width.

    Args:
        sizes: Sides in pixels of a square of the same area.
        ratios: Heights divided by widths.
    """
    cell = []
    for size in sizes:
        for ratio in ratios:
            width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
            cell.append((-width / 2, -height / 2, width / 2, height / 2))
    return tuple(cell)


def paper_cell() -> tuple[Edges, ...]:
    """Returns py-faster-rcnn's nine anchors, whose sides are rounded.

    They are 184×96, 128×128 and 88×176, times 1, 2 and 4, in its order: all sizes of a ratio, then the next.
    """
    sides = ((184, 96), (128, 128), (88, 176))
    return tuple(
        (-width * scale / 2, -height * scale / 2, width * scale / 2, height * scale / 2)
        for width, height in sides
        for scale in (1, 2, 4)
    )


def anchor_grid(
    height: int, width: int, *, stride: int, cell: Sequence[Edges], offset: float = 0.5
) -> Float[np.ndarray, "k 4"]:
    """Returns the anchors of a map, row by row, column by column, then anchor by anchor of a place.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        stride: Pixels of the image for a pixel of the map.
        cell: Anchors around a center.
        offset: Place of the center in a pixel of the map.
    """
    rows, columns = ((np.arange(count) + offset) * stride for count in (height, width))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    centers = np.stack([x, y, x, y], -1)[:, :, None]
    return (centers + np.asarray(cell, np.float64)).reshape(-1, 4)
