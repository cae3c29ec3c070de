"""Image folders of plain colors, one for each class, which a tiny network tells apart within seconds."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image


def color_image(label: int, classes: int, number: int, side: int = 16) -> PIL.Image.Image:
    """Returns an image in the color of a class, with a little noise."""
    color = np.array(colorsys.hsv_to_rgb(label / classes, 0.9, 0.8)) * 255
    noise = np.random.RandomState([label, number]).randint(-20, 21, (side, side, 3))
    return PIL.Image.fromarray(np.clip(color + noise, 0, 255).astype(np.uint8))


def write_colors(
    root: Path, names: Sequence[str], *, splits: dict[str, int], colors: Sequence[int] | None = None
) -> Path:
    """Writes SPLIT/NAME/NNN.png; class number i has color i, or `colors[i]`."""
    for split, count in splits.items():
        for label, name in enumerate(names):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                color = colors[label] if colors else label
                color_image(color, len(names), number).save(folder / f"{number:03}.png")
    return root
