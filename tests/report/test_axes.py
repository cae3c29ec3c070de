import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from resnet_jax.report.axes import Axis, linear_axis, log_axis, number, percent, tick_text


@given(st.lists(st.floats(0, 1e9, allow_subnormal=False), min_size=1, max_size=20).map(np.array))
def test_a_linear_range_holds_its_values_and_round_ticks(values: np.ndarray) -> None:
    axis = linear_axis(values)
    assert ((axis.places(values) >= 0) & (axis.places(values) <= 1)).all()
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 7
    assert axis.low <= ticks[0] < ticks[-1] <= axis.high * (1 + 1e-9)


def test_a_logarithmic_range_has_places_by_ratio() -> None:
    assert Axis(0.01, 100.0, log=True).places(
        np.array([0.01, 0.1, 1.0, 10.0, 100.0])
    ).tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert Axis(0.01, 100.0, log=True).ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.0, 3.0], [3.0, 3.0]])
def test_one_value_above_zero_has_no_logarithmic_range(values: list[float]) -> None:
    assert log_axis(np.array(values)) is None


def test_how_numbers_are_written() -> None:
    assert [number(value) for value in (0.0123456, 12.0, 1234.5, 64000.0, 1e-7)] == [
        "0.01235",
        "12",
        "1,234",
        "64,000",
        "1e-07",
    ]
    assert percent(0.01114) == "1.11 %"
    assert [tick_text(value, as_percent=False) for value in (0.0, 500.0, 20000.0, 2e6)] == [
        "0",
        "500",
        "20k",
        "2M",
    ]
    assert tick_text(0.05, as_percent=True) == "5 %"
