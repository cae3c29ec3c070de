"""From values to places on a plot: ranges, ticks and how numbers are written."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

PLOT_SIDE = 1000
"""Side of the square that a plot is drawn in; the page stretches it."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """A linear or logarithmic range.

    Attributes:
        low: Value at the lower or left end.
        high: Value at the other end; greater.
        log: Logarithmic; `low` is above 0.
    """

    low: float
    high: float
    log: bool = False

    def places(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Returns shares of the way from `low` to `high`; below 0 and above 1 outside."""
        if self.log:
            return np.log(values / self.low) / math.log(self.high / self.low)
        return (values - self.low) / (self.high - self.low)

    def ticks(self, count: int = 5) -> list[float]:
        """Returns about this many round values within the range."""
        if not self.log:
            return _linear_ticks(self.low, self.high, count)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        digits = (1, 2, 5) if len(decades) <= 3 else (1,)
        apart = max(1, len(decades) // count)
        found = [digit * 10.0**decade for decade in decades[::apart] for digit in digits]
        return [tick for tick in found if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]


def linear_axis(values: Float[np.ndarray, " n"]) -> Axis:
    """Returns a range that holds the values and 0."""
    return Axis(min(0.0, 1.04 * float(values.min())), 1.04 * max(0.0, float(values.max())) or 1.0)


def log_axis(values: Float[np.ndarray, " n"], *, least: float = 0.0) -> Axis | None:
    """Returns a logarithmic range of the values above 0, from `least` on; None if they do not differ."""
    above = values[values > 0]
    if not len(above):
        return None
    low, high = max(float(above.min()), least), float(above.max())
    if low >= high:
        return None
    margin = (high / low) ** 0.04
    return Axis(low / margin, high * margin, log=True)


def number(value: float) -> str:
    """Returns a value as the page writes it: four digits, thousands with commas."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """Returns a share in per cent with two decimals: 0.0111 is 1.11 %."""
    return f"{100 * share:.2f} %"


def tick_text(value: float, *, as_percent: bool) -> str:
    """Returns a tick's label, as short as it can be."""
    if as_percent:
        return f"{100 * value:.4g} %"
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.4g}"


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / apart - 1e-9)
    return [place * apart for place in range(first, math.floor(high / apart + 1e-9) + 1)]
