"""`resnet-jax compare`: recipes over several seeds, in one table and figure."""

import argparse

from resnet_jax.cli import option
from resnet_jax.console import print_json

EXAMPLES = (
    "resnet-jax compare plain-20=digits_resnet20,model.name=cifar_plain20 ResNet-20=digits_resnet20",
    "resnet-jax compare digits_resnet20 'v2=digits_resnet20,model.variants=(\"preactivation\",)' --seeds 1",
    "resnet-jax compare A=cifar10:resnet20 B=cifar10:resnet20,model.shortcut=B --budget 0.1",
    "resnet-jax compare digits_resnet20 my_recipe.py --set run.steps=100 --json",
)

ABOUT = """A config is [NAME=]CONFIG[,FIELD=VALUE...]: a recipe as for --config, and fields to change.
NAME is what it is called in the table; tuples are written in brackets: optimizer.boundaries=(100,200)."""


OPTIONS = (
    option("configs", nargs="+", metavar="CONFIG", help="see above"),
    option(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="number of seeds of each, from the config's own on (default: 3)",
    ),
    option(
        "--to",
        default="runs/compare",
        metavar="DIR",
        help="directory of all runs and results (default: runs/compare)",
    ),
    option(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of all configs; may be repeated (default: none)",
    ),
    option(
        "--budget",
        type=float,
        default=1.0,
        metavar="F",
        help="share of the steps to train, schedules included (default: 1)",
    ),
    option(
        "--vmap",
        default="auto",
        metavar="HOW",
        help="train the seeds in one program: yes, no, or auto, if faster (default: auto)",
    ),
    option(
        "--any-data",
        action="store_true",
        help="allow configs that are trained on different data (default: refuse)",
    ),
)


def execute(arguments: argparse.Namespace) -> None:
    """Trains what is missing, writes table, records and figure, and prints the table.

    Raises:
        DivergedError: A run diverged; the others are in the table.
    """
    import dataclasses

    from resnet_jax.comparison.compare_configs import compare
    from resnet_jax.comparison.entries import parse_entry
    from resnet_jax.comparison.figure import draw_comparison
    from resnet_jax.comparison.outcomes import CSV, FIGURE, JSON, MARKDOWN, to_text, write_results
    from resnet_jax.files import as_path
    from resnet_jax.training.config import parse_override
    from resnet_jax.training.loop import DivergedError

    common = [parse_override(text) for text in arguments.set]
    entries = [parse_entry(text, common=common, budget=arguments.budget) for text in arguments.configs]
    folder = as_path(arguments.to)
    comparison = compare(
        entries, folder, seeds=arguments.seeds, vmap=arguments.vmap, any_data=arguments.any_data
    )
    write_results(comparison, folder)
    draw_comparison(comparison, folder)
    if arguments.json:
        print_json(dataclasses.asdict(comparison))
    else:
        print(to_text(comparison))
        print(f"in {folder}: {', '.join((FIGURE, MARKDOWN, CSV, JSON))}, and the runs")
    if comparison.diverged:
        reasons = "; ".join(f"{run}: {reason}" for run, reason in comparison.diverged.items())
        raise DivergedError(f"{len(comparison.diverged)} diverged ({reasons})")
