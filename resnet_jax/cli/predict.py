"""`resnet-jax predict`: the most likely classes of images."""

import argparse
import csv
import dataclasses
import sys

from resnet_jax.cli import TRUST_CODE, at_least, option
from resnet_jax.console import print_json, print_note
from resnet_jax.data.batches import reading_threads
from resnet_jax.data.data_error import DataError
from resnet_jax.inference.predict_files import (
    Prediction,
    Unreadable,
    UnreadableError,
    find_pictures,
    predict_files,
)
from resnet_jax.interop.loading import load_source

EXAMPLES = (
    "resnet-jax predict --workdir runs/digits_resnet20 seven.png",
    "resnet-jax predict --workdir imported/resnet50 photographs --top 3 --csv",
    "find . -name '*.jpg' | resnet-jax predict --workdir imported/resnet50 - --json",
)
COLUMNS = ("file", "rank", "label", "name", "probability")


OPTIONS = (
    option(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image file, folder, or - for paths on stdin, one on a line",
    ),
    option(
        "--workdir",
        required=True,
        help="directory of a run or an import, file of weights, or folder of Hugging Face or timm",
    ),
    option("--step", type=int, help="checkpoint to use (default: the newest)"),
    option(
        "--top",
        type=at_least(1),
        default=5,
        metavar="K",
        help="number of classes for each image (default: 5)",
    ),
    option(
        "--csv",
        action="store_true",
        help=f"print one line for each class: {','.join(COLUMNS)} (default: text)",
    ),
    TRUST_CODE,
)


def execute(arguments: argparse.Namespace) -> None:
    """Prints the likeliest classes of every picture, and on stderr which could not be read.

    Raises:
        UnreadableError: Some could not be read; the others are printed.
    """
    if arguments.json and arguments.csv:
        raise DataError("--json and --csv are given; choose one of them")
    files = find_pictures(_named(arguments.images))
    if not files:
        raise DataError("no picture is named on stdin; give a path on every line")
    trained = load_source(arguments.workdir, arguments.step)
    predictions, unreadable = [], []
    rows = csv.writer(sys.stdout, lineterminator="\n")
    if arguments.csv:
        rows.writerow(COLUMNS)
    for note in trained.notes:
        print_note(note)
    for found in predict_files(trained, files, top=arguments.top, threads=reading_threads(0)):
        if isinstance(found, Unreadable):
            print_note(f"left out {found.file}: {found.reason}")
            unreadable.append(found)
        elif arguments.json:
            predictions.append(found)
        elif arguments.csv:
            rows.writerows(
                (found.file, rank, guess.label, guess.name, f"{guess.probability:.6f}")
                for rank, guess in enumerate(found.top, start=1)
            )
        else:
            print(_line(found))
    if arguments.json:
        print_json(
            {
                "model": trained.model_arguments["name"],
                "step": trained.step,
                "predictions": list(map(dataclasses.asdict, predictions)),
                "unreadable": list(map(dataclasses.asdict, unreadable)),
            }
        )
    if unreadable:
        raise UnreadableError(
            f"{len(unreadable)} of {len(files)} pictures could not be read and were left out"
        )


def _named(images: list[str]) -> list[str]:
    """Returns the names that are given, and in place of `-` those on stdin."""
    names: list[str] = []
    for image in images:
        names += [line.rstrip("\r\n") for line in sys.stdin if line.strip()] if image == "-" else [image]
    return names


def _line(prediction: Prediction) -> str:
    return f"{prediction.file}: " + ", ".join(
        f"{guess.name} {guess.probability:.1%}" for guess in prediction.top
    )
