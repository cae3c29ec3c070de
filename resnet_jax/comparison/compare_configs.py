"""Runs a comparison: trains every config with every missing seed, and collects the results."""

from collections.abc import Sequence

from etils import epath
from rich.console import Console

from resnet_jax.comparison.entries import Entry, check_comparable
from resnet_jax.comparison.outcomes import Comparison, collect_outcome
from resnet_jax.models import summarize
from resnet_jax.models.summary import Summary
from resnet_jax.sweeps.sweep import SweepRun, check_seeds, train_missing
from resnet_jax.training.network import prepare_jax
from resnet_jax.training.task import build_experiment

ADVICE = "give the config another name (NAME=CONFIG), or choose another --to"


def compare(
    entries: Sequence[Entry],
    directory: epath.PathLike,
    *,
    seeds: int,
    vmap: str = "auto",
    any_data: bool = False,
    console: Console | None = None,
) -> Comparison:
    """Trains every config with every seed that is not trained yet, and returns what came out.

    Every run has an ordinary workdir, `<directory>/<name>/seed<S>`. Finished runs are not repeated; one that
    was cut off resumes.

    Args:
        entries: The configs; see `parse_entry`.
        directory: Directory of the comparison.
        seeds: Number of seeds; the first is that of the config.
        vmap: Whether the seeds of a config are trained together in one program: "yes", "no", or "auto", where
            that is faster.
        any_data: Compare also what is trained on different data.
        console: Console that shows progress. Defaults to standard error.

    Raises:
        ConfigError, ModelError, DataError, WorkdirError, DeviceError: One of the runs cannot be trained. It
            is raised before the first begins.
        Interrupted: Ctrl-C or SIGTERM came; the same call resumes.
    """
    check_seeds(seeds)
    check_comparable(entries, any_data=any_data)
    runs = [
        SweepRun(entry.name, config, epath.Path(directory) / entry.directory / f"seed{config.seed}")
        for entry in entries
        for config in map(entry.with_seed, range(seeds))
    ]
    summaries = [_summarize(entry) for entry in entries]
    diverged = train_missing(runs, console, advice=ADVICE, vmap=vmap)
    ended = [run for run in runs if run not in diverged]
    outcomes = tuple(
        collect_outcome(entry, summary, [run for run in ended if run.name == entry.name])
        for entry, summary in zip(entries, summaries, strict=True)
    )
    return Comparison(seeds, outcomes, {str(run): reason for run, reason in diverged.items()})


def _summarize(entry: Entry) -> Summary:
    """Opens the data and makes the net of a config, so that mistakes are found before anything is trained."""
    prepare_jax(entry.config)
    experiment = build_experiment(entry.config)
    return summarize(experiment.model, experiment.image_shape[0])
