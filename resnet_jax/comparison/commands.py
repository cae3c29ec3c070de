"""`resnet-jax compare`: its arguments, and what it prints."""

import argparse
import json

FORM = """A config is [NAME=]CONFIG[,FIELD=VALUE...]: a recipe as for --config, and fields that it has otherwise.
NAME is what it is called in the table; lists are written in brackets: optimizer.boundaries=(100,200)."""


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.description = f"{parser.description}\n\n{FORM}"
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="see above")
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="of each, from the config's own on (default: 3)"
    )
    parser.add_argument(
        "--to", default="runs/compare", metavar="DIR", help="of all runs and results (default: runs/compare)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of all configs; may be repeated"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=1.0,
        metavar="F",
        help="share of the steps, schedules included (default: 1)",
    )
    parser.add_argument(
        "--vmap",
        default="auto",
        metavar="HOW",
        help="train the seeds in one program: yes, no, or auto, if faster",
    )
    parser.add_argument(
        "--any-data", action="store_true", help="compare also what is trained on different data"
    )


def compare_command(arguments: argparse.Namespace) -> None:
    """Trains what is missing, writes table, records and figure, and prints the table.

    Raises:
        DivergedError: A run diverged; the others are in the table.
    """
    import rich
    from etils import epath

    from resnet_jax.comparison.compare import compare
    from resnet_jax.comparison.entries import parse_entry, parse_override
    from resnet_jax.comparison.figure import draw_comparison
    from resnet_jax.comparison.results import CSV, FIGURE, JSON, MARKDOWN, to_json, to_table, write_results
    from resnet_jax.training.loop import DivergedError

    common = [parse_override(text) for text in arguments.set]
    entries = [parse_entry(text, common=common, budget=arguments.budget) for text in arguments.configs]
    folder = epath.Path(arguments.to)
    comparison = compare(
        entries, folder, seeds=arguments.seeds, vmap=arguments.vmap, any_data=arguments.any_data
    )
    write_results(comparison, folder)
    draw_comparison(comparison, folder)
    if arguments.json:
        print(json.dumps(to_json(comparison)))
    else:
        rich.print(to_table(comparison))
        print(f"in {folder}: {', '.join((FIGURE, MARKDOWN, CSV, JSON))}, and the runs")
    if comparison.diverged:
        reasons = "; ".join(f"{run}: {reason}" for run, reason in comparison.diverged.items())
        raise DivergedError(f"{len(comparison.diverged)} diverged ({reasons})")
