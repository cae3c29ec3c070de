"""An easy set of messy photographs: three classes, no split, 40 to 400 pixels, many formats, stray files."""

from pathlib import Path

import numpy as np
import PIL.Image

CLASSES = ("apples", "leaves", "sky")
COLORS = ((190, 40, 40), (50, 140, 50), (90, 140, 210))
FORMATS = ((".jpg", "JPEG"), (".png", "PNG"), (".webp", "WEBP"), (".bmp", "BMP"), (".jfif", "JPEG"))
FORMATS += ((".tif", "TIFF"), ("", "PNG"), (".gif", "GIF"))


def picture(label: int, number: int) -> PIL.Image.Image:
    """Returns blobs in shades of the color of a class on a gray ground, of a size that the number draws."""
    random = np.random.RandomState([label, number])
    width, height = random.randint(40, 401, 2)
    rows, columns = np.mgrid[:height, :width]
    image = np.full((height, width, 3), random.randint(90, 160), float)
    for _ in range(6):
        x, y, radius = random.rand() * width, random.rand() * height, (0.15 + 0.2 * random.rand()) * width
        inside = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
        image[inside] = np.array(COLORS[label]) * (0.7 + 0.6 * random.rand())
    image += random.normal(0, 8, image.shape)
    return PIL.Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def write_messy(root: Path, *, count: int = 60) -> Path:
    """Writes so many pictures of each class, in deeper folders too, and files that are none."""
    for label, name in enumerate(CLASSES):
        for number in range(count):
            folder = root / name / ("more/2026" if number % 7 == 0 else "")
            folder.mkdir(parents=True, exist_ok=True)
            suffix, kind = FORMATS[number % len(FORMATS)]
            image = picture(label, number)
            if kind == "JPEG" and number % 3 == 0:
                image = image.convert("CMYK")
            image.save(folder / f"IMG_{number:04}{suffix}", kind)
        (root / name / "notes.txt").write_text("no image")
        (root / name / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return root
