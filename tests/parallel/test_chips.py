"""The table of chips is consistent with itself, and slices exist or are refused with those that do."""

import pytest

from resnet_jax.parallel import DeviceError
from resnet_jax.parallel.chips import CHIPS, parse_topology

MATRIX_UNITS = {"v2": 2, "v3": 4, "v4": 8, "v5e": 4, "v5p": 8}
"""Of 128 × 128, on a chip."""


@pytest.mark.parametrize("name", MATRIX_UNITS)
def test_the_peak_is_that_of_the_matrix_units_at_the_clock(name: str) -> None:
    clock = CHIPS[name].clock
    assert clock is not None
    assert CHIPS[name].peak_flops == pytest.approx(2 * 128**2 * MATRIX_UNITS[name] * clock, rel=0.01)


@pytest.mark.parametrize(
    ("name", "chips"),
    [("v5e:1x1", 1), ("v5e:16x16", 256), ("v4:4x4x4", 64), ("v5p:2x2x1", 4), ("v3:32x32", 1024)],
)
def test_a_slice_has_the_product_of_its_sides(name: str, chips: int) -> None:
    assert parse_topology(name).chips == chips


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e", "a chip and a grid of chips, such as v5e:2x2"),
        ("v9:2x2", "chips are v2, v3, v4, v5e, v5p, v6e"),
        ("v5e:3x3", "slices of v5e are 1x1, 2x2"),
        ("v5e:32x32", "slices of v5e are"),
        ("v4:4x4", "slices of v4 are 1x1x1"),
        ("v4:16x4x4", "three rising multiples of 4"),
        ("v4:16x16x32", "up to 4096 chips"),
    ],
)
def test_a_slice_that_does_not_exist_is_refused_with_those_that_do(name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        parse_topology(name)
