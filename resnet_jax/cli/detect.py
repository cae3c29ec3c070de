"""`resnet-jax detect`: boxes around the objects in images."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from resnet_jax.cli import TRUST_CODE, option
from resnet_jax.console import ProgressBar, print_json, print_note
from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.detection.coco_results import coco_results, write_detections
from resnet_jax.detection.object_batches import check_size
from resnet_jax.detection.pictures import save_picture
from resnet_jax.detection.trained_detector import TrainedDetector
from resnet_jax.errors import UsageError
from resnet_jax.inference.detected import Detected
from resnet_jax.inference.predict_files import Unreadable, UnreadableError, find_pictures
from resnet_jax.inference.preprocessing import InferenceError, read_pixels
from resnet_jax.interop.loading import load_source

EXAMPLES = (
    "resnet-jax detect photograph.jpg --workdir runs/faster_rcnn_scenes",
    "resnet-jax detect photographs --workdir runs/faster_rcnn_voc07 --to found --threshold 0.7",
    "resnet-jax detect photographs --workdir runs/faster_rcnn_coco --json",
)

ABOUT = """With --to, every picture is written there with its boxes, and detections.json has them all in
COCO's format of results: image_id is the number of the picture, as in images.json."""

OPTIONS = (
    option("images", nargs="+", metavar="IMAGE", help="image file, or folder"),
    option("--workdir", required=True, help="directory of the run of a detector"),
    option("--step", type=int, help="checkpoint to use (default: the newest)"),
    option("--to", metavar="DIR", help="folder for pictures with boxes and detections.json (default: none)"),
    option(
        "--threshold", type=float, default=0.5, metavar="P", help="least score of a detection (default: 0.5)"
    ),
    TRUST_CODE,
)


def execute(arguments: argparse.Namespace) -> None:
    """Prints the objects of every picture, and on stderr which could not be read.

    Raises:
        UsageError: The run is of a classifier, or an option is wrong.
        UnreadableError: Some could not be read; the others are done.
    """
    if not 0 <= arguments.threshold <= 1:
        raise UsageError(f"--threshold is {arguments.threshold}; it is a probability, from 0 to 1")
    files = find_pictures(arguments.images)
    detector = load_source(arguments.workdir, arguments.step)
    if not isinstance(detector, TrainedDetector):
        raise InferenceError(
            f"{arguments.workdir} is a classifier, which finds no boxes; use `resnet-jax predict`, or "
            "train a "
            "detector: resnet-jax train --config=faster_rcnn:scenes"
        )
    for note in detector.notes:
        print_note(note)
    unreadable: list[Unreadable] = []
    read: list[str] = []
    found: list[Detected] = []

    def pictures() -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        for file in files:
            try:
                pixels = read_pixels(file)
                check_size(pixels.shape[:2], detector.detector.profile)
            except (CorruptImageError, DataError, OSError) as error:
                reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
                print_note(f"left out {file}: {reason}")
                unreadable.append(Unreadable(file, reason))
                continue
            read.append(file)
            yield pixels

    with ProgressBar("pictures", len(files)) as bar:
        for one in detector.detect_each(pictures(), count=len(files), threshold=arguments.threshold):
            found.append(one)
            bar.advance(1)
            if arguments.to:
                save_picture(read[len(found) - 1], one, Path(arguments.to), number=len(found) - 1)
    if arguments.to and found:
        write_detections(Path(arguments.to), read, found)
    if arguments.json:
        print_json(
            {
                "model": detector.model_arguments["name"],
                "step": detector.step,
                "images": [{"id": number, "file": file} for number, file in enumerate(read)],
                "categories": [
                    {"id": label, "name": name} for label, name in enumerate(detector.class_names or ())
                ],
                "detections": coco_results(found),
                "unreadable": [{"file": one.file, "reason": one.reason} for one in unreadable],
            }
        )
    else:
        for file, one in zip(read, found, strict=True):
            print(_text(file, one))
    if unreadable:
        raise UnreadableError(
            f"{len(unreadable)} of {len(files)} pictures could not be read and were left out"
        )


def _text(file: str, found: Detected) -> str:
    lines = [f"{file}: {len(found)} object{'' if len(found) == 1 else 's'}"]
    for name, score, box in zip(found.names, found.scores, found.boxes, strict=True):
        edges = ", ".join(f"{edge:.0f}" for edge in box)
        lines.append(f"  {name} {score:.1%} at {edges}")
    return "\n".join(lines)
