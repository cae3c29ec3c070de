"""`resnet-jax paper` and `resnet-jax responses`: their arguments, and what they print."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import rich
from rich.console import Console
from rich.table import Table

from resnet_jax.analysis.checkpoint_responses import RESPONSE_EXAMPLES, analyze_checkpoint, analyze_run
from resnet_jax.data.errors import DataError
from resnet_jax.paper import PaperError
from resnet_jax.paper.artifacts import Artifact, make, plan
from resnet_jax.paper.error_rows import table_1
from resnet_jax.paper.reported import DATASETS, FIGURES, TABLES
from resnet_jax.paper.request import Place, Request
from resnet_jax.sweeps.outputs import write_csv

TABLE_1 = "table1"
OPERATIONS_PER_SECOND = 25e12
"""Multiply-adds of the accelerator that `--plan` counts hours for: 50 TFLOP/s, kept up."""


def paper_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `paper`."""
    add = parser.add_argument
    add(
        "name",
        choices=[TABLE_1, *TABLES, *FIGURES],
        metavar="NAME",
        help=", ".join([TABLE_1, *TABLES, *FIGURES]),
    )
    add(
        "--data",
        choices=DATASETS,
        default="",
        help="the paper's data set (default), or digits: the same in miniature, without a download",
    )
    add(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="train with the seeds 0 … N-1, and give mean ± deviation (default: 1)",
    )
    add(
        "--budget",
        type=float,
        default=1.0,
        metavar="B",
        help="share of the iterations, 1 is all of them (default)",
    )
    add(
        "--nets",
        default="",
        metavar="NET,…",
        help="only these, for example resnet20,plain20 (with commas in a name: resnet34:A)",
    )
    add("--with-1202", action="store_true", help="train the net of 1202 layers on the digits too")
    add("--workdir", default="runs/paper", help="every run has its own below it (default: runs/paper)")
    add("--data-dir", default="", help="where TFDS keeps its sets")
    add(
        "--source",
        default="",
        help="of ImageNet: a folder, or what `resnet-jax prepare` wrote (default: TFDS's imagenet2012)",
    )
    add("--csv", metavar="FILE", help="to write (default: NAME_DATA.csv in the workdir)")
    add("--figure", metavar="FILE", help="picture to write (default: NAME_DATA.png in the workdir)")
    add(
        "--plan",
        action="store_true",
        help="train nothing: print the recipes, the paper's errors and the estimated cost",
    )


def paper_command(arguments: argparse.Namespace) -> None:
    """Prints a table or a figure's numbers, the paper's beside ours, after training what is missing.

    Raises:
        DataError: The data is not at hand; the paper's numbers are printed.
    """
    if arguments.name == TABLE_1:
        _print_table_1(arguments)
        return
    request = Request(
        arguments.name,
        arguments.data,
        arguments.seeds,
        arguments.budget,
        Place(Path(arguments.workdir), arguments.data_dir, arguments.source),
        [net.replace(":", ",") for net in arguments.nets.split(",") if net],
        arguments.with_1202,
    )
    if arguments.plan:
        _print_plan(request, arguments.json)
        return
    table_file, figure_file = _files(arguments, request.chosen_data)
    made = make(request, Console(stderr=True), table_file=table_file, figure_file=figure_file)
    if arguments.json:
        print(json.dumps(made.rows))
    else:
        _print(made)
    if made.missing:
        reason = made.missing.replace("--config.run.data_dir", "--data-dir").replace(
            "config.data.source", "--source"
        )
        raise DataError(f"there are no numbers of ours to set beside the paper's: {reason}")
    if not arguments.json:
        print(f"rows: {table_file}\npicture: {figure_file}")


def responses_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `responses`."""
    add = parser.add_argument
    add("--workdir", required=True, help="of the run")
    add("--step", type=int, help="of the checkpoint (default: the newest)")
    add(
        "--all",
        action="store_true",
        help="of every checkpoint that the run keeps; --config.run.keep=N keeps more of them",
    )
    add(
        "--examples",
        type=int,
        default=RESPONSE_EXAMPLES,
        metavar="N",
        help=f"test images, the first so many (default: {RESPONSE_EXAMPLES})",
    )
    add("--gradients", action="store_true", help="norms of the gradient too, of the first training batch")
    add("--data-dir", help="where the data set is (default: where the run found it)")


def responses_command(arguments: argparse.Namespace) -> None:
    """Prints the deviation of every 3×3 layer's response, and ‖F(x)‖ / ‖x‖ of every block."""
    if arguments.examples < 1:
        raise PaperError(f"--examples is {arguments.examples}; it must be a number of images above 0")
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
        print(json.dumps([dataclasses.asdict(analysis) for analysis in found]))
        return
    for analysis in found:
        title = f"{analysis.net}, step {analysis.step}, {analysis.examples} images of {analysis.split}"
        table = _table(title, ["layer", "deviation", *(["gradient"] if analysis.gradients else [])])
        for layer, deviation in analysis.responses.deviations.items():
            gradient = [f"{analysis.gradients[layer]:.3g}"] if analysis.gradients else []
            table.add_row(layer, f"{deviation:.4f}", *gradient)
        rich.print(table)
        if analysis.responses.distances:
            blocks = _table("", ["block", "‖F(x)‖ / ‖x‖"])
            for block, distance in analysis.responses.distances.items():
                blocks.add_row(block, f"{distance:.4f}")
            rich.print(blocks)


def _files(arguments: argparse.Namespace, data: str) -> tuple[Path, Path]:
    name = Path(arguments.workdir) / f"{arguments.name}_{data}"
    return Path(arguments.csv or f"{name}.csv"), Path(arguments.figure or f"{name}.png")


def _print_table_1(arguments: argparse.Namespace) -> None:
    rows = table_1()
    if arguments.csv:
        write_csv(Path(arguments.csv), rows)
    if arguments.json:
        print(json.dumps(rows))
        return
    table = _table(
        "Table 1. Nets for ImageNet, one image of 224×224",
        ["", "output sizes", "parameters", "multiply-adds", "paper"],
    )
    for row in rows:
        sizes = ", ".join(map(str, row["output_sizes"].values()))
        table.add_row(
            row["name"],
            sizes,
            f"{row['params']:,}",
            f"{row['macs'] / 1e9:.3f}e9",
            f"{row['paper_macs'] / 1e9:g}e9",
        )
    rich.print(table)


def _print_plan(request: Request, as_json: bool) -> None:
    rows = plan(request)
    if as_json:
        print(json.dumps(rows))
        return
    header = [
        "recipe",
        "iterations",
        "batch",
        "paper's error (%)",
        "multiply-adds",
        "of the training",
        "hours",
    ]
    table = _table(
        f"{request.name} on {request.chosen_data}; hours at {OPERATIONS_PER_SECOND:.1e} multiply-adds a second",
        header,
    )
    for row in rows:
        error = "–" if row["paper_top1"] is None else f"{row['paper_top1']:.2f}"
        hours = f"{row['training_macs'] / OPERATIONS_PER_SECOND / 3600:.2g}"
        cost = [f"{row['macs']:.2e}", f"{row['training_macs']:.1e}", hours]
        table.add_row(row["recipe"], f"{row['iterations']:,}", str(row["batch_size"]), error, *cost)
    rich.print(table)


def _print(made: Artifact) -> None:
    table = _table("", made.header)
    for line in made.lines:
        table.add_row(*line)
    rich.print(table)
    print(made.caption)


def _table(title: str, header: Sequence[str]) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table
