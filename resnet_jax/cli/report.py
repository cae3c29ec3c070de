"""`resnet-jax report`: one HTML page about runs."""

import argparse
import datetime
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from resnet_jax.analysis import Analysis, analyze_checkpoint
from resnet_jax.cli import TRUST_CODE, at_least, option
from resnet_jax.console import print_json
from resnet_jax.data.data_error import DataError
from resnet_jax.errors import UsageError
from resnet_jax.files import JsonObject, as_path, write_text
from resnet_jax.object_storage import is_url
from resnet_jax.report.mistakes import Mistakes, check_there, find_mistakes
from resnet_jax.report.object_mistakes import ObjectMistakes, find_object_mistakes
from resnet_jax.report.page import write_page
from resnet_jax.report.run_records import RunRecord, read_runs

EXAMPLES = (
    "resnet-jax report runs/digits_resnet20",
    "resnet-jax report runs/seed0 runs/seed1 runs/seed2 --to seeds.html",
    "resnet-jax report runs/imagenet_resnet50 --records-only --json",
)
MISTAKES: dict[str, Callable[..., Mistakes | ObjectMistakes]] = {
    "classification": find_mistakes,
    "detection": find_object_mistakes,
}
"""What finds the mistakes of a run, by its task."""

ANALYZED = 256
"""Images that responses are taken over."""

Found = TypeVar("Found")


OPTIONS = (
    option(
        "workdirs", nargs="+", metavar="WORKDIR", help="directory of a run, also a live one, or of an import"
    ),
    option("--to", default="report.html", metavar="FILE", help="file to write (default: report.html)"),
    option(
        "--examples",
        type=at_least(0),
        default=10_000,
        metavar="N",
        help="number of test images to predict, 0 for all (default: 10000)",
    ),
    option("--data-dir", help="directory of the datasets (default: where the runs found them)"),
    option(
        "--records-only",
        action="store_true",
        help="leave out what needs the network to run (default: include it)",
    ),
    TRUST_CODE,
)


def execute(arguments: argparse.Namespace) -> None:
    """Writes a page about runs, and prints where it is and what it lacks.

    Raises:
        WorkdirError: One of the workdirs is not a run's.
        DataError: An argument is not allowed.
    """
    target = as_path(arguments.to)
    if target.is_dir():
        raise DataError(f"--to is the folder {target}; give a file, for example {target / 'report.html'}")
    if not is_url(target) and not target.parent.is_dir():
        raise DataError(f"--to is in {target.parent}, which is no folder; make it, or give another file")
    runs = read_runs(arguments.workdirs)
    skipped = "--records-only was asked for" if arguments.records_only else ""
    data_dir = arguments.data_dir
    mistakes: list[Mistakes | ObjectMistakes | str] = []
    analyses: list[Analysis | str] = []
    for run in runs:
        find = MISTAKES.get(run.config.task, find_mistakes)
        examine = partial(find, run.workdir, examples=arguments.examples, data_dir=data_dir)
        mistakes.append(_or_why(run, skipped, examine, data_dir=data_dir, tasks=tuple(MISTAKES)))
        analyze = partial(analyze_checkpoint, run.workdir, examples=ANALYZED, data_dir=data_dir)
        analyses.append(_or_why(run, skipped, analyze, data_dir=data_dir))
    page = write_page(runs, mistakes, analyses, now=datetime.datetime.now(datetime.UTC))
    write_text(target, page)
    left_out = [
        f"{what} of {run.name}: {why}"
        for what, found in (("mistakes", mistakes), ("responses", analyses))
        for run, why in zip(runs, found, strict=True)
        if isinstance(why, str)
    ]
    size = len(page.encode(errors="backslashreplace"))
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


def _or_why(
    run: RunRecord,
    skipped: str,
    find: Callable[[], Found],
    *,
    data_dir: str | None,
    tasks: Sequence[str] = ("classification",),
) -> Found | str:
    """Returns what is found of a run, or why it is left out."""
    if skipped or run.checkpoint is None:
        return skipped or run.note
    if run.config.task not in tasks:
        return f"its task is {run.config.task}"
    try:
        check_there(run.workdir, data_dir)
        return find()
    except UsageError as error:
        return str(error)


def _to_json(run: RunRecord) -> JsonObject:
    accuracy = run.last("test_top1")
    return {
        "workdir": run.workdir,
        "name": run.name,
        "status": run.status,
        "step": run.step,
        "steps": run.config.run.steps,
        "test_error": None if accuracy is None else 1 - accuracy,
        "test_loss": run.last("test_loss"),
        "parameters": run.parameters,
        "wall_time": _wall_time(run),
    }


def _wall_time(run: RunRecord) -> JsonObject | None:
    found = run.wall_time
    if found is None:
        return None
    seconds = {part: round(value, 3) for part, value in found.seconds.items()}
    return {"starts": found.starts, "goodput": round(found.goodput, 4), "seconds": seconds}
