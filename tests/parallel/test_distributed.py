"""Which devices a run takes."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax.parallel import DeviceError, choose_devices
from resnet_jax.parallel.distributed import fits, process_share


@given(st.integers(1, 64), st.integers(1, 16), st.integers(1, 8))
def test_a_batch_fits_where_groups_do_not_straddle_devices(
    groups: int, group_size: int, devices: int
) -> None:
    batch_size = groups * group_size
    owners = [
        [position * devices // batch_size for position in range(g * group_size, (g + 1) * group_size)]
        for g in range(groups)
    ]
    images = batch_size // devices
    whole = all(len(set(owner)) == 1 for owner in owners) or all(
        len(owner) == len(set(owner)) * images for owner in owners
    )
    assert fits(batch_size, group_size, devices) == (batch_size % devices == 0 and whole)


def test_the_most_devices_that_fit_are_taken() -> None:
    assert len(choose_devices(128, 16)) == 8
    assert len(choose_devices(24, 4)) == 6
    assert len(choose_devices(7, None)) == 7
    assert choose_devices(128, 16, requested=2) == jax.devices()[:2]


@pytest.mark.parametrize(
    ("batch_size", "group_size", "requested", "message"),
    [
        (
            100,
            16,
            0,
            "batch_size 100 is not divisible by model.group_size 16.*nearest batch sizes are 96 and 112",
        ),
        (10, 16, 0, "nearest batch sizes are 16 and 16"),
        (12, 4, 5, "does not fit 5 devices; numbers that fit are 1, 3, 6"),
        (128, 16, 9, "run.devices is 9, and this machine has 8"),
    ],
)
def test_what_does_not_fit_is_named(batch_size: int, group_size: int, requested: int, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        choose_devices(batch_size, group_size, requested)


def test_one_process_has_the_whole_batch() -> None:
    np.testing.assert_array_equal(process_share(48, jax.devices()[:4]), np.arange(48))


def test_a_device_has_its_share_of_every_part() -> None:
    rows = process_share(24, jax.devices()[:3], parts=2).reshape(3, 2, 4)
    for device in range(3):
        for part in range(2):
            np.testing.assert_array_equal(rows[device, part], 12 * part + 4 * device + np.arange(4))
    with pytest.raises(DeviceError, match="a batch of 24 does not divide by 3 devices and 5 parts"):
        process_share(24, jax.devices()[:3], parts=5)
