"""Pictures with boxes, names and scores drawn on them."""

import colorsys
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from jaxtyping import UInt8

from resnet_jax.files import open_for_replacing
from resnet_jax.inference.detected import Detected
from resnet_jax.inference.preprocessing import read_pixels

_GOLDEN = 0.618034  # Steps of this size around the circle of colors keep neighbors apart.


def class_color(label: int) -> tuple[int, int, int]:
    """Returns a bright color of a class, far from those of the next labels."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN) % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(pixels: UInt8[np.ndarray, "h w 3"], found: Detected) -> PIL.Image.Image:
    """Returns a picture with its boxes; the least likely are drawn first, small pictures enlarged."""
    factor = max(1, round(512 / max(pixels.shape[:2])))
    image = PIL.Image.fromarray(pixels)
    image = image.resize((image.width * factor, image.height * factor), PIL.Image.Resampling.BICUBIC)
    draw = PIL.ImageDraw.Draw(image)
    line = max(2, max(image.size) // 300)
    font = PIL.ImageFont.load_default(max(12, max(image.size) // 45))
    for place in reversed(range(len(found))):
        color = class_color(int(found.labels[place]))
        left, top, right, bottom = (float(edge) * factor for edge in found.boxes[place])
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=line)
        text = f"{found.names[place]} {found.scores[place]:.0%}"
        _, _, width, height = draw.textbbox((0, 0), text, font=font)
        x = min(max(0.0, left), max(0.0, image.width - width - 4))
        y = top - height - 4 if top >= height + 4 else min(top, image.height - height - 4)
        draw.rectangle((x, y, x + width + 4, y + height + 4), fill=color)
        dark = sum(color[:2]) > 255  # Red and green are what makes a color bright.
        draw.text((x + 2, y + 1), text, fill="black" if dark else "white", font=font)
    return image


def save_picture(file: str, found: Detected, folder: Path, *, number: int) -> Path:
    """Writes a picture with its boxes as PNG into a folder, and returns where.

    The number in its name keeps pictures of the same name apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{number:05d}_{Path(file).stem}.png"
    with open_for_replacing(target) as stream:
        draw_detections(read_pixels(file), found).save(stream, format="PNG")
    return target
