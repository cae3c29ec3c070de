"""Curves by step as inline SVG: the page stretches the lines; labels are its text and keep their size."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from resnet_jax.report.axes import PLOT_SIDE, Axis, linear_axis, log_axis, number, percent, tick_text
from resnet_jax.report.markup import Markup, element, embedded_json, join
from resnet_jax.report.series import POINTS, Series

STEP = "step"
COLORS = 6
"""Number of colors; each has its own dashes too."""
ROWS = 40
"""Largest number of rows in the table behind a chart."""
DOTS = 40
"""Number of points beyond which points are not marked."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves that share their axes.

    Attributes:
        name: Name of the quantity, the heading.
        series: Those with points are drawn.
        as_percent: The values are shares, written in per cent.
        log: A logarithmic version as well, which the page's switch shows.
        x_name: Name of the horizontal axis.
        smooth: Draw the running means of noisy series, of up to two runs with the records faintly behind
            them; and end the linear scale below a high beginning.
        text: What a reader should know, under the heading.
        x_labels: Names of what stands at 1, 2, … on it, for the table and the cursor; where it is not a step.
    """

    name: str
    series: Sequence[Series]
    as_percent: bool = False
    log: bool = True
    smooth: bool = True
    x_name: str = STEP
    text: str = ""
    x_labels: Sequence[str] = ()

    @property
    def runs(self) -> int:
        return len({one.run for one in self.series})

    def label(self, one: Series) -> str:
        """Returns what tells a series from the others of the chart; with several runs, it names the run."""
        if self.runs > 1:
            return f"{one.name}, {one.kind}" if one.kind else one.name
        return one.kind or self.name

    def averages(self, one: Series) -> bool:
        """Tells whether a running mean stands for a series."""
        return self.smooth and not one.bold and one.window > 1

    def write(self, value: float) -> str:
        """Returns a value as this chart writes it."""
        return percent(value) if self.as_percent else number(value)


def draw_chart(chart: Chart) -> Markup | None:
    """Returns the figure of a chart: heading, legend, plot, and its table; None if no series has points."""
    series = [one for one in chart.series if len(one)]
    if not series:
        return None
    chart = dataclasses.replace(chart, series=series)
    points = max(60, POINTS // max(1, len(series) // 4))
    lines = [one.smoothed(points) if chart.averages(one) else one.thinned(points) for one in series]
    last = max(int(one.steps[-1]) for one in series)
    first = 0 if chart.x_name == STEP else 1
    across = Axis(first, max(last, first + 1))
    versions, cut = _versions(chart)
    pictures = [_picture(chart, lines, points, across, axis, which) for which, axis in versions]
    return element(
        "figure",
        element(
            "figcaption", element("h3", chart.name), chart.text and element("p", chart.text, class_="note")
        ),
        _legend(chart) if len(series) > 1 else None,
        element("div", *pictures, class_="plot"),
        element(
            "p",
            element("span", "The highest values lie above.", class_="linear") if cut else element("span"),
            element("span", chart.x_name, aria_hidden="true"),
            class_="below",
        ),
        _table(chart),
        element(
            "script", embedded_json(_for_cursor(chart, lines, across, versions)), type="application/json"
        ),
        class_="chart",
    )


def _versions(chart: Chart) -> tuple[list[tuple[str, Axis]], bool]:
    """Returns the vertical ranges by their names on the page, and whether values lie above the linear one."""
    linear, cut = robust_axis(chart.series)
    if not chart.smooth:
        linear, cut = linear_axis(np.concatenate([one.values for one in chart.series])), False
    logarithmic = robust_log_axis(chart.series) if chart.log else None
    return ([("linear", linear), ("log", logarithmic)] if logarithmic else [("", linear)]), cut


def robust_axis(series: Sequence[Series]) -> tuple[Axis, bool]:
    """Returns a linear range from 0, and whether values lie above it.

    Where a run begins far above the rest of itself, as errors do at chance, the first tenth would flatten
    everything: the range then ends above nearly all that follows.
    """
    values = np.concatenate([one.values for one in series])
    later = np.concatenate([one.values[len(one) // 10 :] for one in series])
    limit = 1.3 * float(np.quantile(later, 0.98))
    if 0 < limit < 0.7 * float(values.max()):
        return linear_axis(np.minimum(values, limit)), True
    return linear_axis(values), False


def robust_log_axis(series: Sequence[Series]) -> Axis | None:
    """Returns a logarithmic range, below which a hundredth of the values of a noisy series may lie."""
    above = [one.values[one.values > 0] for one in series]
    least = min((float(np.quantile(values, 0.01)) for values in above if len(values)), default=0.0)
    return log_axis(np.concatenate(above), least=least)


def dashes(run: int) -> str:
    """Returns the class that gives a run its color and dashes."""
    return f"run{run % COLORS}"


def swatch(run: int, *, bold: bool = False) -> Markup:
    """Returns a piece of a run's line, for legends and tables."""
    line = element("line", x1=0, y1=5, x2=34, y2=5, class_=f"line {dashes(run)}{' bold' if bold else ''}")
    dot = element("path", d="M17,5h0", class_=f"dots {dashes(run)}") if bold else None
    return element(
        "svg", line, dot, viewBox="0 0 34 10", width=34, height=10, aria_hidden="true", class_="swatch"
    )


def _legend(chart: Chart) -> Markup:
    if chart.runs == 1:
        items = [element("li", swatch(one.run, bold=one.bold), chart.label(one)) for one in chart.series]
    else:  # What is bold and what is not is said once for all charts.
        lines = {one.run: one for one in sorted(chart.series, key=lambda one: one.bold)}
        items = [element("li", swatch(run, bold=one.bold), one.name) for run, one in sorted(lines.items())]
    return element("ul", *items, class_="legend")


def _picture(
    chart: Chart, lines: Sequence[Series], points: int, across: Axis, up: Axis, which: str
) -> Markup:
    grid = [_tick(place, tick_text(tick, as_percent=chart.as_percent), "y") for tick, place in _placed(up)]
    grid += [_tick(place, tick_text(tick, as_percent=False), "x") for tick, place in _placed(across)]
    marks = [_spread(chart, one, points, across, up) for one in chart.series] if chart.runs <= 2 else []
    marks += [_line(one, across, up) for one in lines]
    picture = element(
        "svg",
        *(line for line, _ in grid),
        *marks,
        viewBox=f"0 0 {PLOT_SIDE} {PLOT_SIDE}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{_summary(chart)} {'Logarithmic' if up.log else 'Linear'} scale; "
        "the numbers are in the table below.",
    )
    return element("div", picture, *(label for _, label in grid), class_=f"scale {which}".strip())


def _placed(axis: Axis) -> list[tuple[float, float]]:
    ticks = axis.ticks()
    return list(zip(ticks, axis.places(np.array(ticks)).tolist(), strict=True)) if ticks else []


def _tick(place: float, text: str, direction: str) -> tuple[Markup, Markup]:
    if direction == "y":
        at = round(PLOT_SIDE * (1 - place), 1)
        line = element("line", x1=0, x2=PLOT_SIDE, y1=at, y2=at, class_="grid")
        return line, element(
            "span", text, class_="tick y", style=f"top:{100 * (1 - place):.2f}%", aria_hidden="true"
        )
    at = round(PLOT_SIDE * place, 1)
    line = element("line", x1=at, x2=at, y1=0, y2=PLOT_SIDE, class_="grid")
    return line, element("span", text, class_="tick x", style=f"left:{100 * place:.2f}%", aria_hidden="true")


def _line(line: Series, across: Axis, up: Axis) -> Markup:
    drawn = element("path", d=_path(line, across, up), class_=f"line {'bold ' * line.bold}{dashes(line.run)}")
    if not line.bold or len(line) > DOTS:
        return drawn
    return join(drawn, element("path", d=_dots(line, across, up), class_=f"dots {dashes(line.run)}"))


def _spread(chart: Chart, series: Series, points: int, across: Axis, up: Axis) -> Markup | None:
    """Returns the records behind a running mean, faintly: a line, or a band if there are many."""
    if not chart.averages(series):
        return None
    if len(series) <= points:
        return element("path", d=_path(series, across, up), class_=f"line faint {dashes(series.run)}")
    least, greatest = (_coordinates(end, across, up) for end in series.band(points))
    outline = "L".join(f"{x:.1f},{y:.1f}" for x, y in [*least, *greatest[::-1]])
    return element("path", d=f"M{outline}Z", class_=f"band {dashes(series.run)}")


def _coordinates(series: Series, across: Axis, up: Axis) -> Float[np.ndarray, "n 2"]:
    """Returns the points in the picture; far values, and zeros of a logarithmic scale, lie outside it."""
    values = np.maximum(series.values, up.low**2 / up.high) if up.log else series.values
    x, y = across.places(series.steps.astype(float)), 1 - up.places(values)
    return PLOT_SIDE * np.stack([x, np.clip(y, -1, 2)], 1)


def _path(series: Series, across: Axis, up: Axis) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in _coordinates(series, across, up))


def _dots(series: Series, across: Axis, up: Axis) -> str:
    """Returns strokes of no length, which round caps make dots that are not stretched with the picture."""
    return "".join(f"M{x:.1f},{y:.1f}h0" for x, y in _coordinates(series, across, up))


def _summary(chart: Chart) -> str:
    """Returns what a chart shows, in words, for those who do not see it."""
    said = [
        f"{chart.label(one)}: from {chart.write(one.values[0])} at {chart.x_name} {one.steps[0]:,} "
        f"to {chart.write(one.values[-1])} at {chart.x_name} {one.steps[-1]:,}"
        for one in chart.series
    ]
    return f"{chart.name} by {chart.x_name}. {'; '.join(said)}."


def _table(chart: Chart) -> Markup:
    """Returns the table behind a chart: its values at up to `ROWS` steps, those of the bold series first."""
    bold = [one for one in chart.series if one.bold] or chart.series
    steps = np.unique(np.concatenate([one.steps for one in bold]))
    chosen = steps[np.unique(np.linspace(0, len(steps) - 1, min(ROWS, len(steps))).round().astype(int))]
    columns = [dict(zip(one.steps.tolist(), one.values.tolist(), strict=True)) for one in chart.series]
    head = element(
        "tr",
        element("th", chart.x_name, scope="col"),
        *(element("th", chart.label(one), scope="col") for one in chart.series),
    )
    rows = [
        element(
            "tr",
            element("th", chart.x_labels[step - 1] if chart.x_labels else f"{step:,}", scope="row"),
            *(element("td", chart.write(column[step]) if step in column else "–") for column in columns),
        )
        for step in chosen.tolist()
    ]
    left_out = f" ({len(chosen)} of {len(steps):,} {chart.x_name}s)" if len(chosen) < len(steps) else ""
    return element(
        "details",
        element("summary", f"{chart.name} in numbers{left_out}"),
        scrolling(
            element("table", element("thead", head), element("tbody", *rows)), f"{chart.name} in numbers"
        ),
    )


def scrolling(content: Markup, label: str) -> Markup:
    """Returns content in a box that scrolls sideways where it is too wide, also by keyboard."""
    return element("div", content, class_="scrolling", tabindex=0, role="region", aria_label=label)


def _for_cursor(
    chart: Chart, lines: Sequence[Series], across: Axis, versions: Sequence[tuple[str, Axis]]
) -> dict[str, object]:
    return {
        "name": chart.name,
        "x": [across.low, across.high],
        "xName": chart.x_name,
        "xLabels": list(chart.x_labels),
        "percent": chart.as_percent,
        "scales": {which or "linear": [axis.low, axis.high] for which, axis in versions},
        "series": [
            {
                "label": chart.label(one),
                "run": dashes(one.run),
                "bold": one.bold,
                "x": one.steps.tolist(),
                "y": [float(f"{value:.5g}") for value in one.values],
            }
            for one in lines
        ],
    }
