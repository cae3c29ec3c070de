"""`resnet-jax prepare` and `resnet-jax statistics`: their arguments, and what they print."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from resnet_jax.data.batches import reading_threads
from resnet_jax.data.choices import CENTER
from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.data.errors import DataError
from resnet_jax.data.prepare import prepare
from resnet_jax.data.statistics import measure, save


def prepare_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `prepare`."""
    parser.add_argument(
        "source", metavar="SOURCE", help="folder with SPLIT/CLASS/NAME.jpg, or with ImageNet's official tars"
    )
    parser.add_argument("dest", metavar="DEST", help="folder to be made, or one that the same command began")
    parser.add_argument(
        "--shrink",
        type=int,
        default=0,
        metavar="N",
        help="greatest shorter side in pixels (default: as it is)",
    )
    parser.add_argument(
        "--raw-share",
        type=float,
        default=0.0,
        metavar="X",
        help="of the images, stored as pixels (default: 0)",
    )
    parser.add_argument(
        "--shard-examples", type=int, default=4096, metavar="N", help="images per file (default: 4096)"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="threads (default: one per core)")


def statistics_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `statistics`."""
    parser.add_argument(
        "source", metavar="SOURCE", help="image folder, prepared set, or the name of a set of TFDS"
    )
    parser.add_argument(
        "file", metavar="FILE.npz", help="to be written; for --config.data.mean and --config.data.color"
    )
    parser.add_argument("--split", default="train", help="(default: train)")
    parser.add_argument(
        "--image-size",
        type=int,
        default=224,
        metavar="N",
        help="side of the center crop (default: 224); 0: images of one size",
    )
    parser.add_argument(
        "--scale",
        type=int,
        default=256,
        metavar="N",
        help="shorter side that images are scaled to (default: 256)",
    )
    parser.add_argument("--data-dir", help="where TFDS keeps its sets")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="threads (default: one per core)")


def prepare_command(arguments: argparse.Namespace) -> None:
    """Prepares a set, with a progress bar on stderr, and prints what it holds."""
    columns = (
        TextColumn("preparing"),
        MofNCompleteColumn(),
        BarColumn(bar_width=None),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, expand=True, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        manifest = prepare(
            arguments.source,
            arguments.dest,
            shrink=arguments.shrink,
            raw_share=arguments.raw_share,
            shard_examples=arguments.shard_examples,
            workers=_threads(arguments.workers),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    splits = {name: split["examples"] for name, split in manifest["splits"].items()}
    files = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    size, classes = sum(shard["bytes"] for shard in files), len(manifest["class_names"])
    if arguments.json:
        print(
            json.dumps(
                {
                    "dest": arguments.dest,
                    "splits": splits,
                    "classes": classes,
                    "files": len(files),
                    "bytes": size,
                }
            )
        )
        return
    counts = ", ".join(f"{name} {examples:,}" for name, examples in splits.items())
    print(
        f"{arguments.dest}: {counts} images of {classes} classes, {len(files)} files of {size / 1e6:,.1f} MB in all, verified"
    )
    print(f"  python train.py --config=imagenet --config.data.source={Path(arguments.dest)}")


def statistics_command(arguments: argparse.Namespace) -> None:
    """Measures a split, writes the file, and prints the figures."""
    size, scale, workers = arguments.image_size, arguments.scale, _threads(arguments.workers)
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
    statistics = measure(source, workers=workers)
    save(arguments.file, statistics)
    color = statistics.color
    found: dict[str, Any] = {
        "examples": statistics.examples,
        "mean": [round(float(value), 3) for value in statistics.mean.mean((0, 1))],
        "eigenvalues": [round(float(value), 5) for value in color.eigenvalues],
        "eigenvectors": [[round(float(value), 4) for value in row] for row in color.eigenvectors],
    }
    if arguments.json:
        print(json.dumps({"file": arguments.file, **found}))
        return
    print(f"{found['examples']:,} images of {arguments.source}, split {arguments.split}, in {arguments.file}")
    print("\n".join(f"  {name:13}{value}" for name, value in found.items() if name != "examples"))
    print(
        f"  python train.py --config=imagenet --config.data.mean={arguments.file} --config.data.color={arguments.file}"
    )


def _threads(workers: int) -> int:
    if workers < 0:
        raise DataError(f"--workers is {workers}; allowed is 0 (one per core) or more")
    return reading_threads(workers)
