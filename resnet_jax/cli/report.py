"""`resnet-jax report`: one HTML page about runs."""

import argparse
import datetime
from collections.abc import Callable
from typing import Any

from etils import epath

from resnet_jax.analysis import analyze_checkpoint
from resnet_jax.cli import at_least
from resnet_jax.console import print_json
from resnet_jax.data.errors import DataError
from resnet_jax.evaluation.protocols import ProtocolError
from resnet_jax.files import write_text
from resnet_jax.models import ModelError
from resnet_jax.report.mistakes import check_there, find_mistakes
from resnet_jax.report.page import write_page
from resnet_jax.report.runs import Run, read_runs
from resnet_jax.training.checkpoints import CheckpointError
from resnet_jax.training.config_fields import ConfigError

EXAMPLES = (
    "resnet-jax report runs/digits_resnet20",
    "resnet-jax report runs/seed0 runs/seed1 runs/seed2 --to seeds.html",
    "resnet-jax report runs/imagenet_resnet50 --records-only --json",
)
MISSING = (CheckpointError, ConfigError, DataError, ModelError, ProtocolError)
"""What leaves a section out, and not the page."""
ANALYSED = 256
"""Images that responses are taken over."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `report`."""
    parser.add_argument(
        "workdirs", nargs="+", metavar="WORKDIR", help="directory of a run, also a live one, or of an import"
    )
    parser.add_argument(
        "--to", default="report.html", metavar="FILE", help="file to write (default: report.html)"
    )
    parser.add_argument(
        "--examples",
        type=at_least(0),
        default=10_000,
        metavar="N",
        help="number of test images to predict, 0 for all (default: 10000)",
    )
    parser.add_argument("--data-dir", help="directory of the datasets (default: where the runs found them)")
    parser.add_argument(
        "--records-only",
        action="store_true",
        help="leave out what needs the network to run (default: include it)",
    )


def execute(arguments: argparse.Namespace) -> None:
    """Writes a page about runs, and prints where it is and what it lacks.

    Raises:
        WorkdirError: One of the workdirs is not a run's.
        DataError: An argument is not allowed.
    """
    target = epath.Path(arguments.to)
    if target.is_dir():
        raise DataError(f"--to is the folder {target}; give a file, for example {target / 'report.html'}")
    if not target.parent.is_dir():
        raise DataError(f"--to is in {target.parent}, which is no folder; make it, or give another file")
    runs = read_runs(arguments.workdirs)
    skipped = "--records-only was asked for" if arguments.records_only else ""
    data_dir, examples = arguments.data_dir, arguments.examples
    mistakes = [_or_why(run, skipped, find_mistakes, examples=examples, data_dir=data_dir) for run in runs]
    analyses = [
        _or_why(run, skipped, analyze_checkpoint, examples=ANALYSED, data_dir=data_dir) for run in runs
    ]
    page = write_page(runs, mistakes, analyses, now=datetime.datetime.now(datetime.UTC))
    write_text(target, page)
    left_out = [
        f"{what} of {run.name}: {why}"
        for what, found in (("mistakes", mistakes), ("responses", analyses))
        for run, why in zip(runs, found, strict=True)
        if isinstance(why, str)
    ]
    size = len(page.encode())
    if arguments.json:
        print_json(
            {
                "report": str(target),
                "bytes": size,
                "runs": [_to_json(run) for run in runs],
                "left_out": left_out,
            }
        )
        return
    print(
        f"{target}: {len(runs)} run{'s' if len(runs) > 1 else ''}, {size / 1e6:.2f} MB; open it in a browser"
    )
    print("".join(f"  left out: {line}\n" for line in left_out), end="")


def _or_why(run: Run, skipped: str, find: Callable[..., Any], **options: Any) -> Any:
    """Returns what is found of a run, or why it cannot be."""
    if skipped or run.checkpoint is None:
        return skipped or run.note
    try:
        check_there(run.workdir, options["data_dir"])
        return find(run.workdir, **options)
    except MISSING as error:
        return str(error)


def _to_json(run: Run) -> dict[str, Any]:
    accuracy = run.last("test_top1")
    return {
        "workdir": run.workdir,
        "name": run.name,
        "status": run.status,
        "step": run.step,
        "steps": run.fields["run.steps"],
        "test_error": None if accuracy is None else 1 - accuracy,
        "test_loss": run.last("test_loss"),
        "parameters": run.parameters,
    }
