"""`resnet-jax paper`: a table or a figure of the paper, its numbers beside ours."""

import argparse

from etils import epath
from rich.console import Console

from resnet_jax.cli import option
from resnet_jax.console import format_table, print_json
from resnet_jax.data.data_error import DataError
from resnet_jax.files import as_path
from resnet_jax.paper.artifacts import make, plan
from resnet_jax.paper.detection_tables import SCORE_TABLES, score_rows
from resnet_jax.paper.error_rows import table_1
from resnet_jax.paper.reported import DATASETS, FIGURES, TABLES
from resnet_jax.paper.request import Request
from resnet_jax.sweeps.outputs import write_csv

EXAMPLES = (
    "resnet-jax paper table1 --json",
    "resnet-jax paper fig6 --data digits",
    "resnet-jax paper table6 --seeds 5 --nets resnet110",
    "resnet-jax paper table3 --source prepared/imagenet --plan",
)

TABLE_1 = "table1"
OPERATIONS_PER_SECOND = 25e12
"""Multiply-adds of the accelerator that `--plan` counts hours for: 50 TFLOP/s, kept up."""


OPTIONS = (
    option(
        "name",
        choices=[TABLE_1, *TABLES, *SCORE_TABLES, *FIGURES],
        metavar="NAME",
        help=f"one of {', '.join([TABLE_1, *TABLES, *SCORE_TABLES, *FIGURES])}",
    ),
    option(
        "--data",
        choices=DATASETS,
        default="",
        help="dataset; digits is the same in miniature, without a download (default: the paper's)",
    ),
    option(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="train with the seeds 0 … N-1, and give mean ± deviation (default: 1)",
    ),
    option(
        "--budget", type=float, default=1.0, metavar="B", help="share of the iterations to train (default: 1)"
    ),
    option(
        "--nets",
        default="",
        metavar="NET,…",
        help="train only these, such as resnet20,plain20; resnet34:A stands for resnet34,A (default: all)",
    ),
    option(
        "--with-1202",
        action="store_true",
        help="train the network of 1202 layers on the digits too (default: off)",
    ),
    option("--workdir", default="runs/paper", help="directory of all runs (default: runs/paper)"),
    option("--data-dir", help="directory of TFDS's datasets (default: TFDS's own)"),
    option(
        "--source",
        help="ImageNet: a folder, or what `resnet-jax prepare` wrote (default: TFDS's imagenet2012)",
    ),
    option("--csv", metavar="FILE", help="CSV file to write (default: NAME_DATA.csv in the workdir)"),
    option("--figure", metavar="FILE", help="picture to write (default: NAME_DATA.png in the workdir)"),
    option(
        "--plan",
        action="store_true",
        help="print the recipes, the paper's errors and the estimated cost, and train nothing (default: off)",
    ),
)


def execute(arguments: argparse.Namespace) -> None:
    """Prints a table or a figure's numbers, the paper's beside ours, after training what is missing.

    Raises:
        DataError: The data is not at hand; the paper's numbers are printed.
    """
    if arguments.name == TABLE_1:
        _print_table_1(arguments)
        return
    if arguments.name in SCORE_TABLES:
        _print_scores(arguments)
        return
    request = Request(
        arguments.name,
        arguments.data,
        arguments.workdir,
        arguments.seeds,
        arguments.budget,
        [net.replace(":", ",") for net in arguments.nets.split(",") if net],
        arguments.with_1202,
        arguments.data_dir,
        arguments.source,
    )
    if arguments.plan:
        _print_plan(request, arguments.json)
        return
    table_file, figure_file = _files(arguments, request.chosen_data)
    made = make(request, Console(stderr=True), table_file=table_file, figure_file=figure_file)
    if arguments.json:
        print_json(made.rows)
    else:
        print(format_table(made.header, made.lines, caption=made.caption))
    if made.missing:
        reason = made.missing.replace("--config.run.data_dir", "--data-dir").replace(
            "config.data.source", "--source"
        )
        raise DataError(f"there are no numbers of ours to set beside the paper's: {reason}")
    if not arguments.json:
        print(f"rows: {table_file}\npicture: {figure_file}")


def _files(arguments: argparse.Namespace, data: str) -> tuple[epath.Path, epath.Path]:
    name = as_path(arguments.workdir) / f"{arguments.name}_{data}"
    return as_path(arguments.csv or f"{name}.csv"), as_path(arguments.figure or f"{name}.png")


def _print_scores(arguments: argparse.Namespace) -> None:
    """Prints a table of detection; the runs are trained by their recipes, not from here."""
    rows = score_rows(arguments.name, arguments.workdir)
    if arguments.csv:
        write_csv(as_path(arguments.csv), rows)
    if arguments.json:
        print_json(rows)
        return

    def text(value: object) -> str:
        return f"{value:.1f}" if isinstance(value, float) else "-"

    lines = [
        (
            str(row["name"]),
            str(row["data"]),
            *(text(row[column]) for column in ("paper_mAP50", "mAP50", "paper_mAP", "mAP")),
            f"resnet-jax train --config={row['recipe']}" if row["recipe"] else "",
        )
        for row in rows
    ]
    header = ("", "trained on, judged on", "paper @.5", "ours @.5", "paper @[.5,.95]", "ours @[.5,.95]", "")
    print(format_table(header, lines, caption=f"{SCORE_TABLES[arguments.name][0]}, in percent"))
    if not any(row["mAP50"] for row in rows):
        print(f"not trained here: there is no run of a recipe of this table in {arguments.workdir}")


def _print_table_1(arguments: argparse.Namespace) -> None:
    rows = table_1()
    if arguments.csv:
        write_csv(as_path(arguments.csv), rows)
    if arguments.json:
        print_json(rows)
        return
    lines = [
        (
            row["name"],
            ", ".join(map(str, row["output_sizes"].values())),
            f"{row['params']:,}",
            f"{row['macs'] / 1e9:.3f}e9",
            f"{row['paper_macs'] / 1e9:g}e9",
        )
        for row in rows
    ]
    header = ("", "output sizes", "parameters", "multiply-adds", "paper")
    print(
        format_table(
            header, lines, title="Table 1. Networks for ImageNet, one image of 224×224", text_columns=2
        )
    )


def _print_plan(request: Request, as_json: bool) -> None:
    rows = plan(request)
    if as_json:
        print_json(rows)
        return
    lines = [
        (
            row["recipe"],
            f"{row['iterations']:,}",
            str(row["batch_size"]),
            "–" if row["paper_top1"] is None else f"{row['paper_top1']:.2f}",
            f"{row['macs']:.2e}",
            f"{row['training_macs']:.1e}",
            f"{row['training_macs'] / OPERATIONS_PER_SECOND / 3600:.2g}",
        )
        for row in rows
    ]
    speed = f"{OPERATIONS_PER_SECOND:.1e} multiply-adds a second"
    title = f"{request.name} on {request.chosen_data}; hours at {speed}"
    error, training = "paper's error (%)", "of the training"
    header = ("recipe", "iterations", "batch", error, "multiply-adds", training, "hours")
    print(format_table(header, lines, title=title))
