"""`resnet-jax proposals`: the proposals of a detector's split, for the other half of the alternation."""

import argparse

from resnet_jax.cli import TRUST_CODE, at_least, option
from resnet_jax.console import print_json
from resnet_jax.detection.find_proposals import find_proposals
from resnet_jax.detection.proposal_file import write_proposals

EXAMPLES = (
    "resnet-jax proposals --workdir runs/faster_rcnn_voc07_stage1 --to stage1.npz",
    "resnet-jax proposals --workdir runs/faster_rcnn_voc07_stage1 --to test.npz --split test --count 300",
)

OPTIONS = (
    option("--workdir", required=True, help="directory of the run of a detector"),
    option("--to", required=True, metavar="FILE", help="file to write, FILE.npz"),
    option("--step", type=int, help="checkpoint to use (default: the newest)"),
    option("--split", help="split of the run's dataset (default: its training split)"),
    option(
        "--count",
        type=at_least(1),
        default=2000,
        metavar="N",
        help="proposals of an image at most (default: 2000)",
    ),
    TRUST_CODE,
)


def execute(arguments: argparse.Namespace) -> None:
    """Writes the proposals of every image of a split."""
    proposals = find_proposals(
        arguments.workdir, step=arguments.step, split=arguments.split, count=arguments.count
    )
    write_proposals(arguments.to, proposals)
    images, mean = len(proposals.boxes), float(proposals.valid.sum(1).mean())
    if arguments.json:
        print_json({"file": arguments.to, "images": images, "proposals_per_image": mean})
    else:
        print(f"{mean:.0f} proposals of each of {images} images: {arguments.to}")
