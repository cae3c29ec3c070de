import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from resnet_jax.report.series import Series, running_mean, thin

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400).map(np.array)


@given(VALUES, st.integers(4, 60))
def test_thinning_keeps_ends_and_extremes(values: np.ndarray, points: int) -> None:
    kept = thin(values, points)
    assert len(kept) <= max(points, 4)
    assert (np.diff(kept) > 0).all()
    assert {0, len(values) - 1} <= set(kept.tolist())
    assert values[kept].min() == values.min()
    assert values[kept].max() == values.max()


@given(VALUES)
def test_what_is_short_stays_whole(values: np.ndarray) -> None:
    np.testing.assert_array_equal(thin(values, 400), np.arange(len(values)))


@given(VALUES, st.integers(0, 20).map(lambda reach: 2 * reach + 1))
def test_running_mean_is_the_mean_of_those_around(values: np.ndarray, window: int) -> None:
    reach = window // 2
    expected = [values[max(0, place - reach) : place + reach + 1].mean() for place in range(len(values))]
    np.testing.assert_allclose(running_mean(values, window), expected, rtol=1e-9, atol=1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=60, max_size=400).map(np.array), st.integers(4, 60))
def test_the_band_holds_every_value(values: np.ndarray, points: int) -> None:
    least, greatest = Series("", 0, "", np.arange(len(values)), values).band(points)
    assert least.values.min() == values.min()
    assert greatest.values.max() == values.max()
    assert (least.values <= greatest.values).all()
