"""`resnet-jax evaluate`: loss and accuracy of a checkpoint on a dataset, by the paper's protocols."""

import argparse
from collections.abc import Sequence

import numpy as np

from resnet_jax.cli import TRUST_CODE, at_least, load_command, option
from resnet_jax.console import ProgressBar, format_table, print_json, print_note
from resnet_jax.errors import UsageError
from resnet_jax.evaluation.counts import Counts, frequent_mistakes
from resnet_jax.evaluation.evaluate import Evaluation, all_scores, evaluation_of
from resnet_jax.evaluation.precise_statistics import recompute_batch_statistics
from resnet_jax.evaluation.predictions_file import PredictionsFile
from resnet_jax.evaluation.protocols import AVERAGES, PROTOCOLS, SINGLE, SOFTMAX, Protocol
from resnet_jax.evaluation.trial import evaluate_by_task, open_trials
from resnet_jax.interop.loading import open_source_checkpoint
from resnet_jax.training.config import from_json
from resnet_jax.training.stored_classes import read_class_map
from resnet_jax.training.stored_statistics import MOVING, PRECISE, STATISTICS

EXAMPLES = (
    "resnet-jax evaluate runs/digits_resnet20",
    "resnet-jax evaluate --workdir runs/digits_resnet20 --step 150 --per-class --confusion",
    "resnet-jax evaluate --workdir runs/imagenet --protocol ten-crop --json",
    "resnet-jax evaluate --workdir runs/imagenet --protocol multi-scale --precise-bn 50000",
    "resnet-jax evaluate --workdir runs/seed0 --workdir runs/seed1 --predictions predictions.csv",
)

MATRIX = 20
"""Number of classes up to which the confusion matrix is printed; beyond it, number of mistakes listed."""


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of whole numbers, such as 224,256,384"
        ) from None


OPTIONS = (
    option(
        "runs",
        nargs="*",
        metavar="WORKDIR",
        help="directory of the run, or a file or folder of weights; several average their softmax",
    ),
    option(
        "--workdir",
        action="append",
        default=[],
        help="the same, as an option (default: none)",
    ),
    option("--step", type=int, help="checkpoint to evaluate (default: the newest)"),
    option("--split", help="split of the dataset, such as train (default: the run's test split)"),
    option(
        "--data",
        metavar="SOURCE",
        help="dataset with the same classes or some of them: a folder or a TFDS name (default: the run's)",
    ),
    option(
        "--class-map",
        metavar="FILE",
        help="CSV or JSON file that names the network's class of each class of the dataset, or `order` to "
        "take the labels as they are (default: match by name or WordNet id)",
    ),
    option(
        "--restrict",
        action="store_true",
        help="choose among the classes that the dataset has, as for ImageNet-A and -R (default: all)",
    ),
    option("--data-dir", help="directory of the dataset (default: where the run found it)"),
    option(
        "--batch-size",
        type=at_least(1),
        metavar="N",
        help="number of images of the single view's size in a batch (default: the run's)",
    ),
    option(
        "--statistics",
        default=MOVING,
        help=f"statistics of batch normalization: {' or '.join(STATISTICS)} (default: {MOVING})",
    ),
    option(
        "--precise-bn",
        type=int,
        metavar="N",
        help="recompute these statistics over N training images, 0 for all, store them in the workdir, and "
        "evaluate with them (default: use the stored ones)",
    ),
    option("--per-class", action="store_true", help="print the figures of every class too (default: off)"),
    option("--confusion", action="store_true", help="print the confusion matrix (default: off)"),
    option(
        "--predictions",
        metavar="FILE",
        help="write the most likely classes of every example to FILE.csv or FILE.npz (default: none)",
    ),
    option(
        "--protocol",
        default=SINGLE,
        help=f"views of an image: {', '.join(PROTOCOLS)}; of a detector single, refine, multi-scale or "
        f"refine+multi-scale (default: {SINGLE}, as during training)",
    ),
    option(
        "--scales",
        type=_numbers,
        default=(),
        metavar="N,N,…",
        help="shorter sides for multi-scale (default: 224,256,384,480,640)",
    ),
    option(
        "--crop",
        type=int,
        default=0,
        metavar="N",
        help="side of the ten crops (default: that of the single view)",
    ),
    option(
        "--average",
        default=SOFTMAX,
        help=f"what to average over views: {' or '.join(AVERAGES)} (default: {SOFTMAX})",
    ),
    option(
        "--mirror",
        action="store_true",
        help="add the mirror image of every view; ten crops always do (default: off)",
    ),
    TRUST_CODE,
)


def execute(arguments: argparse.Namespace) -> None:
    """Prints loss and accuracy of a checkpoint, or of the ensemble of several; or a task's own metrics."""
    arguments.workdir = [*arguments.runs, *arguments.workdir]
    if not arguments.workdir:
        raise UsageError("no run is named; give its directory: resnet-jax evaluate runs/digits_resnet20")
    if (
        from_json(open_source_checkpoint(arguments.workdir[0], arguments.step).config).task
        != "classification"
    ):
        _evaluate_by_task(arguments)
        return
    protocol = Protocol(
        arguments.protocol, arguments.scales, arguments.crop, arguments.average, arguments.mirror
    )
    file = PredictionsFile(arguments.predictions) if arguments.predictions else None
    where = {"step": arguments.step, "data_dir": arguments.data_dir}
    if arguments.precise_bn is not None:
        arguments.statistics = PRECISE
        for workdir in arguments.workdir:
            done = recompute_batch_statistics(workdir, images=arguments.precise_bn, **where)
            print_note(f"statistics of {done.images} training images are in {done.file}")
    trials = open_trials(
        arguments.workdir,
        split=arguments.split,
        source=arguments.data,
        statistics=arguments.statistics,
        class_map=read_class_map(arguments.class_map) if arguments.class_map else None,
        restrict=arguments.restrict,
        **where,
    )
    names = list(trials[0].source.class_names)
    counts = Counts(len(names))
    with ProgressBar("images", sum(len(trial.source) for trial in trials)) as bar:
        for scores in all_scores(trials, protocol, batch_size=arguments.batch_size, scored=bar.advance):
            counts.add(scores)
            if file:
                file.add(scores)
    if file:
        file.write(names)
    results = evaluation_of(counts, trials, protocol)
    per_class = [{"name": name, **row} for name, row in zip(names, counts.per_class(), strict=True)]
    if arguments.json:
        parts = {"per_class": per_class} if arguments.per_class else {}
        parts |= {"confusion": counts.confusion.tolist()} if arguments.confusion else {}
        print_json({**results, **parts})
        return
    print(_summary(results))
    if arguments.per_class:
        print(_table_of_classes(names, counts.per_class()))
    if arguments.confusion:
        print(_confusions(counts.confusion, names))


def _evaluate_by_task(arguments: argparse.Namespace) -> None:
    _, parser = load_command("evaluate")
    own = ["runs", "workdir", "step", "data_dir", "json", "trust_code"]
    config = from_json(open_source_checkpoint(arguments.workdir[0], arguments.step).config)
    changes: dict[str, object] = {}
    if config.task == "detection":
        own += ["split", "data", "protocol"]
        changes["detection.protocol"] = arguments.protocol
        changes["data.test_split"] = arguments.split or config.data.test_split
        changes["data.source"] = arguments.data or config.data.source
    given = [name for name, value in vars(arguments).items() if value != parser.get_default(name)]
    ignored = [name for name in given if name not in own]
    if ignored or len(arguments.workdir) > 1:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in ignored) or "several --workdir"
        raise UsageError(
            f"{arguments.workdir[0]} is no classification, and {options} is only for classification; leave "
            "it out"
        )
    results = evaluate_by_task(
        arguments.workdir[0], step=arguments.step, data_dir=arguments.data_dir, changes=changes
    )
    if arguments.json:
        print_json(results)
    else:
        print(", ".join(f"{name} {value:.6g}" for name, value in results.items()))


def _summary(results: Evaluation) -> str:
    steps = results["step"] if isinstance(results["step"], list) else [results["step"]]
    nets = (
        f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} nets at steps {', '.join(map(str, steps))}"
    )
    top5 = f", top-5 {results['top5']:.2%}" if "top5" in results else ""
    figures = f"accuracy {results['top1']:.2%}{top5}, loss {results['loss']:.4f}, balanced accuracy "
    figures += f"{results['balanced_accuracy']:.2%}, macro-F1 {results['macro_f1']:.3f}"
    protocol = "" if results["protocol"] == SINGLE else f", {results['protocol']}"
    classes = ""
    if "classes" in results:
        choice = "choosing among these" if results["restricted"] else "choosing among all; see --restrict"
        classes = f" in {results['classes']} classes ({choice})"
    return f"{nets}, {results['examples']} images of {results['split']}{classes}{protocol}: {figures}"


LARGEST_TABLE = 30
"""Number of classes up to which all are listed at the end of a training; beyond it, the worst are."""


def print_classes(names: Sequence[str], counts: Counts) -> None:
    """Prints balanced accuracy, macro-F1 and the accuracy of every class, or of the worst of many."""
    results, rows = counts.results(), list(zip(names, counts.per_class(), strict=True))
    print(f"balanced accuracy {results['balanced_accuracy']:.2%}, macro-F1 {results['macro_f1']:.3f}")
    if len(rows) > LARGEST_TABLE:
        tested = [row for row in rows if row[1]["top1"] is not None]
        rows = sorted(tested, key=lambda row: row[1]["top1"] or 0)[:LARGEST_TABLE]
        print(f"the {LARGEST_TABLE} classes with the lowest accuracy (all: resnet-jax evaluate --per-class):")
    print(_table_of_classes([name for name, _ in rows], [row for _, row in rows]))


def _table_of_classes(names: Sequence[str], rows: Sequence[dict[str, float | None]]) -> str:
    columns = [column for column in ("top1", "top5") if column in rows[0]]
    cells = [
        (
            name,
            str(row["examples"]),
            *("–" if (x := row[column]) is None else f"{x:.2%}" for column in columns),
        )
        for name, row in zip(names, rows, strict=True)
    ]
    titles = {"top1": "accuracy", "top5": "top-5"}
    return format_table(("class", "examples", *(titles[column] for column in columns)), cells)


def _confusions(confusion: np.ndarray, names: Sequence[str]) -> str:
    """Returns the matrix, rows by label; of many classes, the most frequent mistakes."""
    if len(names) <= MATRIX:
        rows = [(name, *map(str, row)) for name, row in zip(names, confusion, strict=True)]
        return format_table(("", *names), rows, title="label by prediction:")
    lines = [
        f"{count:6}  {names[label]} taken for {names[taken]}"
        for label, taken, count in frequent_mistakes(confusion, MATRIX)
    ]
    return "\n".join(["most frequent mistakes (the whole matrix: --json):", *lines])
