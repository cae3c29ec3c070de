"""`resnet-jax prepare`: an image folder or ImageNet's tar files, as ArrayRecord shards."""

import argparse

from resnet_jax.cli import WORKERS, option
from resnet_jax.console import ProgressBar, print_json
from resnet_jax.data.batches import reading_threads
from resnet_jax.data.prepare import prepare
from resnet_jax.files import as_path

EXAMPLES = (
    "resnet-jax prepare photographs prepared/photographs",
    "resnet-jax prepare imagenet_tars prepared/imagenet --shrink 480",
    "resnet-jax prepare photographs prepared/raw --shrink 480 --raw-share 0.5 --json",
)


OPTIONS = (
    option(
        "source",
        metavar="SOURCE",
        help="folder with SPLIT/CLASS/NAME.jpg or CLASS/NAME.jpg, with ImageNet's official tars, or Kaggle's",
    ),
    option("dest", metavar="DEST", help="folder to create, or one that the same command began"),
    option(
        "--shrink",
        type=int,
        default=0,
        metavar="N",
        help="longest allowed shorter side in pixels; larger images are shrunk (default: no limit)",
    ),
    option(
        "--raw-share",
        type=float,
        default=0.0,
        metavar="X",
        help="share of the images to store as pixels (default: 0)",
    ),
    option(
        "--shard-examples",
        type=int,
        default=4096,
        metavar="N",
        help="number of images in a file (default: 4096)",
    ),
    WORKERS,
    option(
        "--verify-contents",
        action="store_true",
        help="compare every image of a set that is whole with the source (default: off)",
    ),
)


def execute(arguments: argparse.Namespace) -> None:
    """Prepares a set, with a progress bar on stderr, and prints what it holds."""
    with ProgressBar("preparing") as bar:
        manifest = prepare(
            arguments.source,
            arguments.dest,
            shrink=arguments.shrink,
            raw_share=arguments.raw_share,
            shard_examples=arguments.shard_examples,
            workers=reading_threads(arguments.workers),
            verify_contents=arguments.verify_contents,
            progress=bar.update,
        )
    splits = {name: split["examples"] for name, split in manifest["splits"].items()}
    files = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    size, classes = sum(shard["bytes"] for shard in files), len(manifest["class_names"])
    if arguments.json:
        print_json(
            {
                "dest": arguments.dest,
                "splits": splits,
                "classes": classes,
                "files": len(files),
                "bytes": size,
            }
        )
        return
    counts = ", ".join(f"{name} {examples:,}" for name, examples in splits.items())
    print(
        f"{arguments.dest}: {counts} images of {classes} classes, {len(files)} files of {size / 1e6:,.1f} "
        "MB in all, verified"
    )
    print(f"  resnet-jax train --config=imagenet --config.data.source={as_path(arguments.dest)}")
