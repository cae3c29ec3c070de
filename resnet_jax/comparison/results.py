"""What came out of a comparison: errors at the end over seeds, what the nets cost, and how long they took."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import flax.linen as nn
import jax
from etils import epath

from resnet_jax.comparison.entries import Entry
from resnet_jax.console import format_table
from resnet_jax.models import summarize
from resnet_jax.training.logging import Record, read_metrics

JSON, CSV, MARKDOWN, FIGURE = "compare.json", "compare.csv", "compare.md", "compare.png"


@dataclasses.dataclass(frozen=True)
class Net:
    """Parameters, and multiply-adds for one image."""

    params: int
    macs: int


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The end of one run.

    Attributes:
        seed: Of the run.
        step: The last.
        error: Share of the test images that are classified wrongly, at the end (not the best on the way).
        loss: Of the test images.
        train_error: Of the last tenth of the training steps, augmented.
        seconds: Of training and evaluating; where seeds were trained together, a share of the whole.
        workdir: Where the run is kept.
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
        name, config: Of the entry.
        model: Name of the net.
        params, macs: Of the net, multiply-adds for one image.
        error_mean, error_std: Over seeds, the sample's deviation (None for one seed); None where no run ended.
        seconds_mean: Of a run.
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


def measure_net(model: nn.Module, image_shape: tuple[int, int, int]) -> Net:
    """Returns what a net has and does for square images; blocks in a loop count as often as it runs."""
    summary = summarize(model, image_shape[0])
    return Net(summary.params, summary.macs)


def collect(
    entries: Sequence[Entry],
    nets: Mapping[str, Net],
    runs: Iterable[tuple[Entry, int, epath.Path]],
    *,
    seeds: int,
    diverged: Mapping[str, str],
) -> Comparison:
    """Returns the comparison of finished runs, given as entry, seed and workdir."""
    found: dict[str, list[RunResult]] = {entry.name: [] for entry in entries}
    for entry, seed, workdir in runs:
        found[entry.name].append(_read(seed, workdir, entry.config.batch_size))
    outcomes = []
    for entry in entries:
        results, net = found[entry.name], nets[entry.name]
        errors = [result.error for result in results]
        outcomes.append(
            Outcome(
                name=entry.name,
                config=entry.text,
                model=entry.config.model.name,
                params=net.params,
                macs=net.macs,
                error_mean=fmean(errors) if errors else None,
                error_std=stdev(errors) if len(errors) > 1 else None,
                seconds_mean=fmean(result.seconds for result in results) if results else None,
                runs=tuple(results),
            )
        )
    return Comparison(seeds, tuple(outcomes), dict(diverged))


def _read(seed: int, workdir: epath.Path, batch_size: int) -> RunResult:
    records = read_metrics(workdir)
    last = [record for record in records if "test_top1" in record][-1]
    end = [1 - record["top1"] for record in records if record["step"] > 0.9 * last["step"]]
    return RunResult(
        seed=seed,
        step=int(last["step"]),
        error=1 - last["test_top1"],
        loss=last["test_loss"],
        train_error=fmean(end),
        seconds=_seconds(records, batch_size),
        workdir=str(workdir),
    )


def _seconds(records: Sequence[Record], batch_size: int) -> float:
    """Returns the time of the steps, from the rates: times of day would count the pause before a run that was cut off went on."""
    steps = [record["step"] for record in records]
    made = [step - before for before, step in zip([0, *steps], steps, strict=False)]
    return sum(
        count * batch_size / max(record["images_per_second"], 1e-9)
        for count, record in zip(made, records, strict=True)
    )


def write_results(comparison: Comparison, directory: epath.PathLike) -> None:
    """Writes compare.json, compare.csv (a line for every run) and compare.md."""
    folder = epath.Path(directory)
    (folder / JSON).write_text(json.dumps(to_json(comparison), indent=2) + "\n")
    (folder / CSV).write_text(_csv(comparison))
    (folder / MARKDOWN).write_text(to_markdown(comparison))


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Returns everything, for `json.dumps`."""
    return dataclasses.asdict(comparison)


def _csv(comparison: Comparison) -> str:
    file = io.StringIO()
    fields = [
        "name",
        "config",
        "model",
        "params",
        "macs",
        *(field.name for field in dataclasses.fields(RunResult)),
    ]
    writer = csv.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    for outcome in comparison.outcomes:
        common = {name: getattr(outcome, name) for name in fields[:5]}
        writer.writerows(common | dataclasses.asdict(result) for result in outcome.runs)
    return file.getvalue()


HEADINGS = ("", "error", "parameters", "multiply-adds", "time of a run")


def _rows(comparison: Comparison) -> list[tuple[str, ...]]:
    return [
        (o.name, _error(o, comparison.seeds), f"{o.params:,}", f"{o.macs:,}", f"{o.seconds_mean or 0:.0f} s")
        for o in comparison.outcomes
    ]


def _error(outcome: Outcome, seeds: int) -> str:
    if outcome.error_mean is None:
        return "diverged"
    text = f"{100 * outcome.error_mean:.2f}"
    text += f" ± {100 * outcome.error_std:.2f} %" if outcome.error_std is not None else " %"
    missing = seeds - len(outcome.runs)
    return f"{text} ({missing} of {seeds} diverged)" if missing else text


def to_text(comparison: Comparison) -> str:
    """Returns the table for people."""
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
