"""`resnet-jax check`: every file of an image folder that cannot be read, before a training meets it."""

import argparse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from resnet_jax.cli import WORKERS, option
from resnet_jax.console import ProgressBar, print_json
from resnet_jax.data.batches import reading_threads
from resnet_jax.data.data_error import DataError
from resnet_jax.data.decode import decode
from resnet_jax.data.encoded import Examples
from resnet_jax.data.folder import FolderExamples
from resnet_jax.data.image_files import LeftOut
from resnet_jax.data.prepare import open_splits
from resnet_jax.errors import ResNetError

EXAMPLES = ("resnet-jax check photographs", "resnet-jax check photographs --json")
OPTIONS = (
    option("folder", metavar="FOLDER", help="image folder, or a folder with ImageNet's official tar files"),
    WORKERS,
)
LISTED_FILES = 50  # Most files left out that are listed as text; JSON lists all.


class BadFilesError(ResNetError):
    """Some images cannot be read; all of them are printed."""


def execute(arguments: argparse.Namespace) -> None:
    """Decodes every image, and prints those that fail, what is left out, and the images of each class.

    Raises:
        BadFilesError: Some images cannot be read.
    """
    splits = open_splits(arguments.folder)
    bad: list[dict[str, str]] = []
    left_out: list[LeftOut] = []
    counts: dict[str, dict[str, int]] = {}
    total = sum(map(len, splits.values()))
    with ProgressBar("images", total) as bar, ThreadPoolExecutor(reading_threads(arguments.workers)) as pool:
        for name, examples in splits.items():
            for index, why in enumerate(pool.map(partial(_why_bad, examples), range(len(examples)))):
                bar.advance()
                if why:
                    bad.append({"file": examples.describe(index).partition(" (example")[0], "reason": why})
            labels = Counter(examples.label(index) for index in range(len(examples)))
            counts[name] = {label: labels[place] for place, label in enumerate(examples.class_names)}
            if isinstance(examples, FolderExamples):
                left_out += [LeftOut(f"{name}/{item.path}", item.reason) for item in examples.left_out]
    visible = [item for item in left_out if not item.hidden]
    if arguments.json:
        print_json(
            {
                "images": total,
                "classes": counts,
                "bad": bad,
                "left_out": [{"file": item.path, "reason": item.reason} for item in left_out],
            }
        )
    else:
        _print(counts, bad, visible)
    if bad:
        raise BadFilesError(
            f"{len(bad)} of {total} images cannot be read; fix or remove them, or train with "
            "--config.data.corrupt=skip"
        )


def _why_bad(examples: Examples, index: int) -> str:
    """Returns why an image cannot be read; "" if it can."""
    try:
        payload, _ = examples.read(index)
        if isinstance(payload, bytes):
            decode(payload)
    except DataError as error:
        return str(error)
    return ""


def _print(counts: dict[str, dict[str, int]], bad: list[dict[str, str]], left_out: list[LeftOut]) -> None:
    for name, classes in counts.items():
        each = ", ".join(f"{label} {count}" for label, count in list(classes.items())[:12])
        more = ", …" if len(classes) > 12 else ""
        print(f"{name}: {sum(classes.values())} images of {len(classes)} classes: {each}{more}")
    for file in bad:
        print(f"bad: {file['file']}: {file['reason']}")
    for item in left_out[:LISTED_FILES]:
        print(f"left out: {item.path}: {item.reason}")
    if len(left_out) > LISTED_FILES:
        print(f"left out: {len(left_out) - LISTED_FILES} more files")
