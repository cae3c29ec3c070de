"""Results of a comparison: final errors over seeds, cost of the networks, and training time."""

import dataclasses
from collections.abc import Sequence
from statistics import fmean

import jax
from etils import epath

from resnet_jax.comparison.entries import Entry
from resnet_jax.console import format_table
from resnet_jax.files import write_json, write_text
from resnet_jax.models.summary import Summary
from resnet_jax.sweeps.errors_over_seeds import format_error, mean_and_deviation
from resnet_jax.sweeps.outputs import write_csv
from resnet_jax.sweeps.sweep import SweepRun
from resnet_jax.training.logging import Record

JSON, CSV, MARKDOWN, FIGURE = "compare.json", "compare.csv", "compare.md", "compare.png"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The end of one run.

    Attributes:
        seed: Seed of the run.
        step: Last step.
        error: Share of the test images that are classified wrongly, at the end (not the best on the way).
        loss: Loss on the test images.
        train_error: Training error over the last tenth of the steps, with augmentation.
        seconds: Time of training and evaluation; a share of the whole where seeds were trained together.
        workdir: Directory of the run.
    """

    seed: int
    step: int
    error: float
    loss: float
    train_error: float
    seconds: float
    workdir: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A config over its seeds.

    Attributes:
        name, config: Name and config of the entry.
        model: Name of the net.
        params, macs: Parameters of the net, and its multiply-adds for one image.
        error_mean, error_std: Mean and sample deviation of the test error over seeds. The deviation is None
            for one seed; both are None if no run ended.
        seconds_mean: Mean time of a run.
        runs: One for every seed.
    """

    name: str
    config: str
    model: str
    params: int
    macs: int
    error_mean: float | None
    error_std: float | None
    seconds_mean: float | None
    runs: tuple[RunResult, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Outcomes in the order asked for, and the runs that diverged with the reason."""

    seeds: int
    outcomes: tuple[Outcome, ...]
    diverged: dict[str, str]
    jax: str = jax.__version__


def collect_outcome(entry: Entry, summary: Summary, runs: Sequence[SweepRun]) -> Outcome:
    """Returns the outcome of a config from its finished runs."""
    results = tuple(_read_result(run) for run in runs)
    mean, deviation = mean_and_deviation([result.error for result in results])
    seconds, _ = mean_and_deviation([result.seconds for result in results])
    name = entry.config.model.name
    return Outcome(
        entry.name, entry.text, name, summary.params, summary.macs, mean, deviation, seconds, results
    )


def _read_result(run: SweepRun) -> RunResult:
    records = run.records
    last = [record for record in records if "test_top1" in record][-1]
    end = [1 - record["top1"] for record in records if record["step"] > 0.9 * last["step"]]
    return RunResult(
        seed=run.config.seed,
        step=int(last["step"]),
        error=1 - last["test_top1"],
        loss=last["test_loss"],
        train_error=fmean(end),
        seconds=_seconds(records, run.config.batch_size),
        workdir=str(run.workdir),
    )


def _seconds(records: Sequence[Record], batch_size: int) -> float:
    """Returns the time of the steps from their rates: times of day would count the pause before resuming."""
    steps = [record["step"] for record in records]
    made = [step - before for before, step in zip([0, *steps], steps, strict=False)]
    return sum(
        count * batch_size / max(record["images_per_second"], 1e-9)
        for count, record in zip(made, records, strict=True)
    )


def write_results(comparison: Comparison, directory: epath.PathLike) -> None:
    """Writes compare.json, compare.csv (a line for every run) and compare.md."""
    folder = epath.Path(directory)
    write_json(folder / JSON, dataclasses.asdict(comparison), indent=2)
    write_text(folder / MARKDOWN, to_markdown(comparison))
    of_config = ("name", "config", "model", "params", "macs")
    rows = []
    for outcome in comparison.outcomes:
        common = {name: getattr(outcome, name) for name in of_config}
        rows += [common | dataclasses.asdict(result) for result in outcome.runs]
    write_csv(folder / CSV, rows, [*of_config, *(field.name for field in dataclasses.fields(RunResult))])


HEADINGS = ("", "error", "parameters", "multiply-adds", "time of a run")


def _rows(comparison: Comparison) -> list[tuple[str, ...]]:
    return [
        (o.name, _error(o, comparison.seeds), f"{o.params:,}", f"{o.macs:,}", f"{o.seconds_mean or 0:.0f} s")
        for o in comparison.outcomes
    ]


def _error(outcome: Outcome, seeds: int) -> str:
    if outcome.error_mean is None:
        return "diverged"
    deviation = None if outcome.error_std is None else 100 * outcome.error_std
    text = f"{format_error(100 * outcome.error_mean, deviation)} %"
    missing = seeds - len(outcome.runs)
    return f"{text} ({missing} of {seeds} diverged)" if missing else text


def to_text(comparison: Comparison) -> str:
    """Returns the table for people, its caption below."""
    return format_table(HEADINGS, _rows(comparison), caption=caption(comparison))


def to_markdown(comparison: Comparison) -> str:
    """Returns the same table in Markdown, its caption below."""
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *_rows(comparison)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{caption(comparison)}.\n"


def caption(comparison: Comparison, what: str = "Test error at the end") -> str:
    """Returns what the numbers are, over how many seeds and steps."""
    steps = sorted({result.step for outcome in comparison.outcomes for result in outcome.runs})
    over = f"mean ± standard deviation over {comparison.seeds} seeds" if comparison.seeds > 1 else "one seed"
    return f"{what}, {over}; {', '.join(f'{step:,}' for step in steps)} steps"
