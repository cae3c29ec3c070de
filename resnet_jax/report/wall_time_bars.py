"""Where the wall time of runs went: a bar for each run, and a table."""

from collections.abc import Callable, Sequence
from functools import partial

from resnet_jax.console import format_duration
from resnet_jax.report.axes import percent
from resnet_jax.report.chart import scrolling, swatch
from resnet_jax.report.markup import Markup, element, join
from resnet_jax.report.run_records import RunRecord
from resnet_jax.report.tables import NONE, heading_row
from resnet_jax.training.wall_time import WallTime

SHOWN_PARTS = {
    "computing": "Computing",
    "input": "Waiting for input",
    "evaluation": "Evaluation",
    "saving": "Saving",
    "restoring": "Restoring",
    "starting": "Starting",
    "lost": "Lost steps",
}
"""Parts of the time that a process ran, as the page calls them."""


def wall_time_bars(runs: Sequence[RunRecord]) -> Markup | None:
    """Returns a bar for each run whose wall time is known, and a table; None where it is known of none."""
    known = [run for run in runs if run.wall_time]
    if not known:
        return None
    bars = [_bar(run, run.wall_time) for run in known if run.wall_time]
    return join(element("div", *bars, class_="bars"), _table(known))


def _bar(run: RunRecord, found: WallTime) -> Markup:
    shares = {part: found.share(part) for part in SHOWN_PARTS}
    words = ", ".join(
        f"{SHOWN_PARTS[part].lower()} {percent(share)}" for part, share in shares.items() if share
    )
    segments = (
        element("span", class_=f"part {part}", style=f"--share:{share:.5f}")
        for part, share in shares.items()
        if share > 0
    )
    return element(
        "div",
        element("p", swatch(run.number), f" {run.name}: goodput {percent(found.goodput)}"),
        element("div", *segments, class_="bar", role="img", aria_label=f"Time of {run.name}: {words}"),
    )


def _table(runs: Sequence[RunRecord]) -> Markup:
    rows: list[tuple[Markup | str, Callable[[WallTime], str]]] = [
        *(
            (join(element("span", class_=f"part {part}", aria_hidden="true"), name), partial(_part, part))
            for part, name in SHOWN_PARTS.items()
        ),
        ("Up, in all", lambda one: format_duration(one.running)),
        ("Down between starts", lambda one: format_duration(one.seconds["down"])),
        ("Starts", lambda one: f"{one.starts:,}"),
    ]
    body = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(element("td", tell(run.wall_time) if run.wall_time else NONE) for run in runs),
        )
        for name, tell in rows
    ]
    return scrolling(element("table", heading_row(runs), element("tbody", *body)), "Wall time")


def _part(part: str, found: WallTime) -> str:
    return f"{format_duration(found.seconds[part])} ({percent(found.share(part))})"
