"""Image folders made of the two photographs that scikit-learn ships, so that tests read real JPEGs without a
download."""

import functools
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import sklearn.datasets

CLASSES = ("china", "flower", "negative")


@functools.cache
def photographs() -> tuple[np.ndarray, np.ndarray]:
    """Returns both, uint8[427, 640, 3]."""
    return tuple(np.ascontiguousarray(image) for image in sklearn.datasets.load_sample_images().images)


def photograph(label: int, number: int) -> np.ndarray:
    """Returns a part of a photograph, of a size that the number draws, around 250 × 200.

    The third class is in negative.
    """
    random = np.random.RandomState([label, number])
    image = photographs()[(label + number) % 2 if label == 2 else label]
    width, height = random.randint(330, 640), random.randint(260, 427)
    left, top = random.randint(0, 640 - width + 1), random.randint(0, 427 - height + 1)
    part = image[top : top + height, left : left + width]
    size = (int(width * 0.6), int(height * 0.6)) if number % 3 else (height // 2, width // 2)
    part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return 255 - part if label == 2 else part


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality)


def write_folder(root: Path, *, train: int, val: int) -> Path:
    """Writes this many images of each class into train and val, and returns the root."""
    for split, numbers in (("train", range(train)), ("val", range(train, train + val))):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in numbers:
                (folder / f"{number:04d}.jpg").write_bytes(jpeg(photograph(label, number)))
    return root
