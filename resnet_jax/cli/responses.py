"""`resnet-jax responses`: responses of the layers of a run (Fig. 7), and gradients."""

import argparse
import dataclasses

from resnet_jax.analysis.run_analysis import RESPONSE_EXAMPLES, analyze_checkpoint, analyze_run
from resnet_jax.cli import TRUST_CODE, at_least, option
from resnet_jax.console import format_table, print_json
from resnet_jax.paper import PaperError

EXAMPLES = (
    "resnet-jax responses --workdir runs/digits_resnet20",
    "resnet-jax responses --workdir runs/digits_resnet20 --all --gradients --json",
)


OPTIONS = (
    option("--workdir", required=True, help="directory of the run"),
    option("--step", type=int, help="checkpoint to analyze (default: the newest)"),
    option(
        "--all",
        action="store_true",
        help="analyze every checkpoint that the run kept; --config.run.keep=N keeps more (default: one)",
    ),
    option(
        "--examples",
        type=at_least(1),
        default=RESPONSE_EXAMPLES,
        metavar="N",
        help=f"number of test images, from the first (default: {RESPONSE_EXAMPLES})",
    ),
    option(
        "--gradients",
        action="store_true",
        help="measure norms of the gradient on the first training batch too (default: off)",
    ),
    option("--data-dir", help="directory of the dataset (default: where the run found it)"),
    TRUST_CODE,
)


def execute(arguments: argparse.Namespace) -> None:
    """Prints the deviation of every 3×3 layer's response, and ‖F(x)‖ / ‖x‖ of every block."""
    if arguments.all and arguments.step is not None:
        raise PaperError("--all and --step are given; choose one of them")
    options = {
        "examples": arguments.examples,
        "gradients": arguments.gradients,
        "data_dir": arguments.data_dir,
    }
    if arguments.all:
        found = analyze_run(arguments.workdir, **options)
    else:
        found = [analyze_checkpoint(arguments.workdir, arguments.step, **options)]
    if arguments.json:
        print_json([dataclasses.asdict(analysis) for analysis in found])
        return
    for analysis in found:
        title = f"{analysis.net}, step {analysis.step}, {analysis.examples} images of {analysis.split}"
        header = ["layer", "deviation", *(["gradient"] if analysis.gradients else [])]
        rows = []
        for layer, deviation in analysis.responses.deviations.items():
            gradient = [f"{analysis.gradients[layer]:.3g}"] if analysis.gradients else []
            rows.append([layer, f"{deviation:.4f}", *gradient])
        print(format_table(header, rows, title=title))
        if analysis.responses.distances:
            distances = analysis.responses.distances.items()
            blocks = [(block, f"{distance:.4f}") for block, distance in distances]
            print(format_table(("block", "‖F(x)‖ / ‖x‖"), blocks))
