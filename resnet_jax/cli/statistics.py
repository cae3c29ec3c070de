"""`resnet-jax statistics`: the mean and the principal colors of a training set."""

import argparse
from pathlib import Path

from resnet_jax.cli import WORKERS, option
from resnet_jax.console import print_json
from resnet_jax.data.batches import reading_threads
from resnet_jax.data.choices import CENTER
from resnet_jax.data.data_error import DataError
from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.statistics import measure_pixels, save_statistics

EXAMPLES = (
    "resnet-jax statistics prepared/imagenet statistics.npz",
    "resnet-jax statistics digits digits.npz --image-size 0 --json",
)


OPTIONS = (
    option("source", metavar="SOURCE", help="image folder, prepared set, or the name of a TFDS dataset"),
    option("file", metavar="FILE.npz", help="file to write; for --config.data.mean and --config.data.color"),
    option("--split", default="train", help="split to measure (default: train)"),
    option(
        "--image-size",
        type=int,
        default=224,
        metavar="N",
        help="side of the center crop, 0 for images of one size (default: 224)",
    ),
    option(
        "--scale",
        type=int,
        default=256,
        metavar="N",
        help="shorter side that images are scaled to (default: 256)",
    ),
    option("--data-dir", help="directory of TFDS's datasets (default: TFDS's own)"),
    WORKERS,
)


def execute(arguments: argparse.Namespace) -> None:
    """Measures a split, writes the file, and prints the figures."""
    size, scale, workers = arguments.image_size, arguments.scale, reading_threads(arguments.workers)
    if size < 0 or scale < size:
        raise DataError(
            f"--image-size is {size} and --scale {scale}; allowed are 0 or more, and the image size or more"
        )
    decoding = (
        DecodeOptions(CENTER, size=size, scales=(size, size), areas=(1.0, 1.0), test_scale=scale)
        if size
        else None
    )
    if not arguments.file.endswith(".npz") or not Path(arguments.file).absolute().parent.is_dir():
        raise DataError(f"{arguments.file} cannot be written: it must be FILE.npz, in a folder that is there")
    source = open_source(arguments.source, arguments.split, data_dir=arguments.data_dir, decoding=decoding)
    statistics = measure_pixels(source, workers=workers)
    save_statistics(arguments.file, statistics)
    color = statistics.color
    found = {
        "examples": statistics.examples,
        "mean": [round(float(value), 3) for value in statistics.mean.mean((0, 1))],
        "eigenvalues": [round(float(value), 5) for value in color.eigenvalues],
        "eigenvectors": [[round(float(value), 4) for value in row] for row in color.eigenvectors],
    }
    if arguments.json:
        print_json({"file": arguments.file, **found})
        return
    print(f"{found['examples']:,} images of {arguments.source}, split {arguments.split}, in {arguments.file}")
    print("\n".join(f"  {name:13}{value}" for name, value in found.items() if name != "examples"))
    fields = f"--config.data.mean={arguments.file} --config.data.color={arguments.file}"
    print(f"  resnet-jax train --config=imagenet {fields}")
