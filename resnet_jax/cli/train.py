"""`resnet-jax train`, and train.py: train a network, or resume the run in a directory."""

import argparse

from resnet_jax.cli import FIELDS, TRUST_CODE, option
from resnet_jax.console import print_json
from resnet_jax.training.config import Config, all_fields
from resnet_jax.training.recipes import DEFAULT, load_recipe, recipe_name, recipes

EXAMPLES = (
    "resnet-jax train",
    "resnet-jax train --config=digits_resnet20 --config.seed=1 --workdir=runs/seed1",
    "resnet-jax train --config=my_recipe.py --config.optimizer.learning_rate=0.05 --config.run.steps=500",
)

ABOUT = """Ctrl-C and SIGTERM save and stop; the same command resumes. Exit codes: 0 done, 1 failed,
2 a mistake in the command, 75 stopped and saved.

Start several processes with the same command except for --process. On Cloud TPU, on SLURM and in
indexed jobs of Kubernetes, leave out --coordinator, --processes and --process; give --processes=1
to train on one process alone there too."""


DETAILS = "fields of the recipe, with their defaults:\n" + "\n".join(
    f"  {field.path}={field.default!r}   {field.meaning}" for field in all_fields().values()
)

OPTIONS = (
    FIELDS,
    option(
        "--config",
        metavar="NAME",
        default=DEFAULT,
        help=f"recipe: FILE.py, or {', '.join(recipes())}; arguments follow a colon (default: {DEFAULT})",
    ),
    option(
        "--workdir",
        metavar="DIR",
        help="directory of the run, the same for all processes (default: runs/NAME)",
    ),
    option(
        "--coordinator", metavar="HOST:PORT", default="", help="address of the first process (default: none)"
    ),
    option("--processes", metavar="N", type=int, help="number of processes that train together (default: 1)"),
    option("--process", metavar="I", type=int, help="number of this process, from 0 (default: the only one)"),
    TRUST_CODE,
)


def execute(arguments: argparse.Namespace) -> None:
    """Trains to the end of the recipe, and prints the last metrics.

    Raises:
        ResNetError: The recipe or an option is wrong, the run failed, or it was stopped and saved.
    """
    from resnet_jax.training.stopwatch import Stopwatch

    stopwatch = Stopwatch()  # Before the imports that take long.
    from rich.console import Console

    from resnet_jax.data.datasets import is_path
    from resnet_jax.parallel import Processes
    from resnet_jax.training.checkpoint_writer import SaveError
    from resnet_jax.training.run import run

    with Processes() as processes:
        processes.join(coordinator=arguments.coordinator, count=arguments.processes, index=arguments.process)
        config = load_recipe(arguments.config, arguments.overrides)
        workdir = arguments.workdir or f"runs/{recipe_name(arguments.config)}"
        console = Console(stderr=arguments.json, quiet=not processes.first)
        try:
            record = run(config, workdir, console, processes, stopwatch)
        except SaveError:
            processes.await_verdict()  # If another process is gone, that is why.
            raise
        if arguments.json and processes.first:
            print_json(record)
        elif processes.count == 1 and config.data.source and is_path(config.data.source):
            _print_classes(workdir, config)


MOST_TESTED = 20_000
"""Images of a test split that is evaluated class by class at the end."""


def _print_classes(workdir: str, config: Config) -> None:
    """Prints the accuracy of every class, their mean and macro-F1, of a run on one's own images."""
    from resnet_jax.cli.evaluate import print_classes
    from resnet_jax.evaluation.counts import Counts
    from resnet_jax.evaluation.evaluate import all_scores
    from resnet_jax.evaluation.protocols import SINGLE, Protocol
    from resnet_jax.evaluation.trial import open_trials

    if config.task != "classification":
        return
    trials = open_trials(workdir)
    if len(trials[0].source) > MOST_TESTED:
        return
    names = list(trials[0].source.class_names)
    counts = Counts(len(names))
    for scores in all_scores(trials, Protocol(SINGLE)):
        counts.add(scores)
    print_classes(names, counts)
