"""`resnet-jax evaluate` and `resnet-jax predict`: their arguments, and what they print."""

import argparse
import contextlib
import csv
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import rich.console
import rich.progress

from resnet_jax.data.batches import reading_threads
from resnet_jax.data.errors import DataError
from resnet_jax.evaluation.counts import Counts
from resnet_jax.evaluation.evaluate import Evaluation, all_scores, summarize
from resnet_jax.evaluation.precise_statistics import recompute_batch_statistics
from resnet_jax.evaluation.predict import Prediction, Unreadable, UnreadableError, find_pictures, predict
from resnet_jax.evaluation.predictions_file import PredictionsFile
from resnet_jax.evaluation.protocols import AVERAGES, PROTOCOLS, SINGLE, SOFTMAX, Protocol, ProtocolError
from resnet_jax.evaluation.trial import open_trials
from resnet_jax.interop.trained import read_trained
from resnet_jax.training.precise import MOVING, PRECISE, STATISTICS

MATRIX = 20
"""Classes of the largest confusion matrix that is printed, and mistakes that are printed of a larger one."""

COLUMNS = ("file", "rank", "label", "name", "probability")


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `evaluate`."""
    add = parser.add_argument
    add(
        "--workdir",
        required=True,
        action="append",
        help="of the run; given several times, their softmax is averaged",
    )
    add("--step", type=int, help="of the checkpoint (default: the newest)")
    add("--split", help="of the data set, for example train (default: the run's test split)")
    add(
        "--data",
        metavar="SOURCE",
        help="another data set with the same classes: a folder, or a name in TFDS (default: the run's)",
    )
    add("--data-dir", help="where the data set is (default: where the run found it)")
    add(
        "--protocol",
        default=SINGLE,
        help=f"{', '.join(PROTOCOLS)} (default: {SINGLE}, as the run is tested in training)",
    )
    add(
        "--scales",
        type=_numbers,
        default=(),
        metavar="N,N,…",
        help="shorter sides for multi-scale (default: 224,256,384,480,640)",
    )
    add(
        "--crop",
        type=int,
        default=0,
        metavar="N",
        help="side of the ten crops (default: that of the single view)",
    )
    add(
        "--average",
        default=SOFTMAX,
        help=f"over the views of an image, of {' or '.join(AVERAGES)} (default: {SOFTMAX})",
    )
    add(
        "--mirror",
        action="store_true",
        help="see every view in the mirror too; ten crops have it in any case",
    )
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help="images of the single view's size that the net may see at once (default: the run's)",
    )
    add(
        "--statistics",
        default=MOVING,
        help=f"of batch normalization: {' or '.join(STATISTICS)} (default: {MOVING})",
    )
    add(
        "--precise-bn",
        type=int,
        metavar="N",
        help="first recompute them as a plain average over N training images, 0 for all, store "
        "them in the workdir, and evaluate with these",
    )
    add("--per-class", action="store_true", help="the figures of every class too")
    add("--confusion", action="store_true", help="how many examples of each class are taken for each class")
    add(
        "--predictions",
        metavar="FILE",
        help="write the likeliest classes of every example into FILE.csv or FILE.npz",
    )


def evaluate_command(arguments: argparse.Namespace) -> None:
    """Prints loss and accuracy of one run's checkpoint, or of the ensemble of several."""
    protocol = Protocol(
        arguments.protocol, arguments.scales, arguments.crop, arguments.average, arguments.mirror
    )
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise ProtocolError(f"--batch-size is {arguments.batch_size}; it must be a number of images above 0")
    file = PredictionsFile(arguments.predictions) if arguments.predictions else None
    where = {"step": arguments.step, "data_dir": arguments.data_dir}
    if arguments.precise_bn is not None:
        arguments.statistics = PRECISE
        for workdir in arguments.workdir:
            done = recompute_batch_statistics(workdir, images=arguments.precise_bn, **where)
            print(
                f"resnet-jax: statistics of {done.images} training images are in {done.file}", file=sys.stderr
            )
    trials = open_trials(
        arguments.workdir,
        split=arguments.split,
        source=arguments.data,
        statistics=arguments.statistics,
        **where,
    )
    names = list(trials[0].source.class_names)
    counts = Counts(len(names))
    with _progress(sum(len(trial.source) for trial in trials)) as scored:
        for scores in all_scores(trials, protocol, batch_size=arguments.batch_size, scored=scored):
            counts.add(scores)
            if file:
                file.add(scores)
    if file:
        file.write(names)
    results = summarize(counts, trials, protocol)
    per_class = [{"name": name, **row} for name, row in zip(names, counts.per_class(), strict=True)]
    if arguments.json:
        parts = {"per_class": per_class} if arguments.per_class else {}
        parts |= {"confusion": counts.confusion.tolist()} if arguments.confusion else {}
        print(json.dumps({**results, **parts}))
        return
    print(_summary(results))
    if arguments.per_class:
        print(_table_of_classes(per_class))
    if arguments.confusion:
        print(_confusions(counts.confusion, names))


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `predict`."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file, a folder, or - for paths on stdin, one on a line"
    )
    parser.add_argument("--workdir", required=True, help="of a run or an import")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest)")
    parser.add_argument(
        "--top", type=int, default=5, metavar="K", help="classes for each picture (default: 5)"
    )
    parser.add_argument(
        "--csv", action="store_true", help=f"print a line for each class: {','.join(COLUMNS)}"
    )


def predict_command(arguments: argparse.Namespace) -> None:
    """Prints the likeliest classes of every picture, and on stderr which could not be read.

    Raises:
        UnreadableError: Some could not be read; the others are printed.
    """
    if arguments.top < 1:
        raise DataError(f"--top is {arguments.top}; it must be a number of classes above 0")
    if arguments.json and arguments.csv:
        raise DataError("--json and --csv are given; choose one of them")
    files = find_pictures(_named(arguments.images))
    if not files:
        raise DataError("no picture is named on stdin; give a path on every line")
    trained = read_trained(arguments.workdir, arguments.step)
    predictions, unreadable = [], []
    rows = csv.writer(sys.stdout, lineterminator="\n")
    if arguments.csv:
        rows.writerow(COLUMNS)
    for note in trained.notes:
        print(f"resnet-jax: {note}", file=sys.stderr)
    for found in predict(trained, files, top=arguments.top, threads=reading_threads(0)):
        if isinstance(found, Unreadable):
            print(f"resnet-jax: left out {found.file}: {found.reason}", file=sys.stderr)
            unreadable.append(found)
        elif arguments.json:
            predictions.append(found)
        elif arguments.csv:
            rows.writerows(
                (found.file, rank, guess.label, guess.name, f"{guess.probability:.6f}")
                for rank, guess in enumerate(found.top, start=1)
            )
        else:
            print(_line(found))
    if arguments.json:
        print(
            json.dumps(
                {
                    "model": trained.model_arguments["name"],
                    "step": trained.step,
                    "predictions": list(map(dataclasses.asdict, predictions)),
                    "unreadable": list(map(dataclasses.asdict, unreadable)),
                }
            )
        )
    if unreadable:
        raise UnreadableError(
            f"{len(unreadable)} of {len(files)} pictures could not be read and were left out"
        )


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """Shows a bar on a terminal's stderr while the block runs, and yields what to call with the number of examples done."""
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=total)
        yield lambda count: bar.advance(task, count)


def _numbers(text: str) -> tuple[int, ...]:
    """Returns the whole numbers of a list with commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of whole numbers, such as 224,256,384"
        ) from None


def _summary(results: Evaluation) -> str:
    steps = results["step"] if isinstance(results["step"], list) else [results["step"]]
    nets = (
        f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} nets at steps {', '.join(map(str, steps))}"
    )
    top5 = f", top-5 {results['top5']:.2%}" if "top5" in results else ""
    figures = f"top-1 {results['top1']:.2%}{top5}, loss {results['loss']:.4f}"
    protocol = "" if results["protocol"] == SINGLE else f", {results['protocol']}"
    return f"{nets}, {results['examples']} images of {results['split']}{protocol}: {figures}"


def _table_of_classes(rows: Sequence[dict[str, Any]]) -> str:
    width = max(len("class"), *(len(row["name"]) for row in rows))
    columns = [name for name in ("top1", "top5") if name in rows[0]]
    lines = [f"{'class':{width}}  examples" + "".join(f"{name:>9}" for name in columns)]
    for row in rows:
        shares = ("–" if row[name] is None else f"{row[name]:.2%}" for name in columns)
        lines.append(
            f"{row['name']:{width}}  {row['examples']:8}" + "".join(f"{share:>9}" for share in shares)
        )
    return "\n".join(lines)


def _confusions(confusion: np.ndarray, names: Sequence[str]) -> str:
    """Returns the matrix, rows by label and columns by prediction; of many classes, the most frequent mistakes."""
    if len(names) <= MATRIX:
        width = max(*map(len, names), len(str(confusion.max()))) + 2
        rows = [["", *names], *([name, *row] for name, row in zip(names, confusion, strict=True))]
        return "label by prediction:\n" + "\n".join(
            "".join(f"{cell!s:>{width}}" for cell in row) for row in rows
        )
    mistakes = confusion - np.diag(np.diag(confusion))
    frequent = [
        divmod(int(place), len(names)) for place in np.argsort(-mistakes, axis=None, kind="stable")[:MATRIX]
    ]
    lines = [
        f"{mistakes[label, taken]:6}  {names[label]} taken for {names[taken]}"
        for label, taken in frequent
        if mistakes[label, taken]
    ]
    return "most frequent mistakes (the whole matrix: --json):\n" + "\n".join(lines)


def _named(images: list[str]) -> list[str]:
    """Returns the names that are given, and in place of `-` those on stdin."""
    names: list[str] = []
    for image in images:
        names += [line.rstrip("\r\n") for line in sys.stdin if line.strip()] if image == "-" else [image]
    return names


def _line(prediction: Prediction) -> str:
    return f"{prediction.file}: " + ", ".join(
        f"{guess.name} {guess.probability:.1%}" for guess in prediction.top
    )
