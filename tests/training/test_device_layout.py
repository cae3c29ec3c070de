"""A run resumes on fewer and on more devices: the accumulation is chosen, and the curve is the same."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from resnet_jax import create_model
from resnet_jax.errors import UsageError
from resnet_jax.parallel import DeviceError
from resnet_jax.parallel.distributed import fits
from resnet_jax.training.config import resolve
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.device_layout import (
    LAYOUT_RECORD,
    DeviceLayout,
    choose_accumulation,
    choose_layout,
    draws_random_numbers,
    read_layout,
    store_layout,
)
from resnet_jax.training.run import run
from tests.training import tiny
from tests.training.test_processes import assert_same_curve

STOPS = (3, 6, 9)
"""Steps at which the devices change, and the last one."""

Slice = Callable[[int], None]


@pytest.fixture
def slice_of(monkeypatch: pytest.MonkeyPatch) -> Slice:
    """Returns what leaves a number of the eight devices visible."""
    devices = jax.devices()

    def leave(count: int) -> None:
        monkeypatch.setattr(jax, "devices", lambda: devices[:count])
        monkeypatch.setattr(jax, "device_count", lambda: count)

    return leave


@pytest.fixture(scope="module")
def double() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def train(workdir: Path, steps: int, **changes: Any) -> str:
    """Trains or resumes on the devices that are visible, and returns what was printed."""
    fields = {"model.dtype": "float64", "run.devices": None, "run.steps": steps}
    fields |= {"run.evaluate_every": 3, "run.checkpoint_every": 3, "run.keep": 9}
    printed = io.StringIO()
    run(tiny.get_config(**{**fields, **changes}), workdir, Console(file=printed, width=1000))
    return printed.getvalue()


def devices_line(printed: str) -> str:
    """Returns the line about other devices; empty where there is none."""
    return next((line for line in printed.splitlines() if "devices: " in line or "accumulation" in line), "")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, double: None) -> Path:
    """Eight devices of two images each, in groups of four."""
    del double
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert not devices_line(train(workdir, STOPS[-1]))
    return workdir


@pytest.fixture
def begun(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the run as it stood at the first stop."""
    workdir = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    for step in STOPS[1:]:
        shutil.rmtree(workdir / "checkpoints" / str(step))
    return workdir


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_half_the_devices_and_all_again_make_the_same_curve(
    undisturbed: Path, begun: Path, slice_of: Slice
) -> None:
    slice_of(4)
    printed = train(begun, STOPS[1])
    assert "4 cpu devices, batches in 2 parts" in printed
    assert devices_line(printed) == (
        "devices: 4 (before: 8); accumulation: 2 (before: 1), so a device holds 2 images at once; the global "
        "batch, its groups and the order of examples stay the same"
    )
    assert read_layout(begun) == DeviceLayout(4, 4, 2, most_images=2)
    slice_of(8)
    printed = train(begun, STOPS[2])
    assert devices_line(printed).startswith(
        "devices: 8 (before: 4); accumulation: 1 (before: 2), so a device holds 2 images at once;"
    )
    assert_same_curve(begun, undisturbed, steps=STOPS[-1])
    assert json.loads((begun / "config.json").read_text())["run"]["accumulation"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_devices_that_do_not_divide_the_batch_stay_unused(
    undisturbed: Path, begun: Path, slice_of: Slice
) -> None:
    slice_of(3)
    printed = train(begun, STOPS[-1])
    assert "2 cpu devices, batches in 4 parts" in printed
    assert devices_line(printed).startswith(
        "devices: 2 (before: 8); 1 of 3 stay unused, since a batch of 16 in groups of 4 cannot be cut over "
        "more; accumulation: 4 (before: 1), so a device holds 2 images at once;"
    )
    assert_same_curve(begun, undisturbed, steps=STOPS[-1])


def layout(workdir: Path, **changes: Any) -> int:
    fields = {"run.devices": None, **changes}
    return choose_layout(resolve(tiny.get_config(**fields)), workdir).accumulation


def test_an_accumulation_of_the_user_wins(tmp_path: Path, slice_of: Slice) -> None:
    store_layout(tmp_path, DeviceLayout(8, 8, 1, most_images=2))
    slice_of(3)
    assert layout(tmp_path) == 4
    slice_of(2)
    assert layout(tmp_path) == 4
    assert layout(tmp_path, **{"run.accumulation": 1}) == 1
    assert layout(tmp_path, **{"run.devices": 1}) == 4  # Groups of four allow no micro-batch below four.


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_what_the_user_sets_is_kept_and_remembered(undisturbed: Path, begun: Path, slice_of: Slice) -> None:
    slice_of(2)
    printed = train(begun, STOPS[1], **{"run.accumulation": 2})
    assert devices_line(printed).startswith(
        "warning: devices: 2 (before: 8); accumulation: 2 (before: 1), so a device holds 4 images at once, "
        "more than 2; leave out --config.run.accumulation to have it chosen;"
    )
    assert read_layout(begun) == DeviceLayout(2, 2, 2, most_images=4)
    slice_of(4)
    assert devices_line(train(begun, STOPS[2])).startswith(
        "devices: 4 (before: 2); accumulation: 1 (before: 2)"
    )
    with pytest.raises(ConfigError, match=r"accumulation is 3; .*allowed are 1, 2, 4$"):
        train(begun, STOPS[2], **{"run.accumulation": 3})
    assert_same_curve(begun, undisturbed, steps=STOPS[-1])


def test_a_fresh_start_and_a_run_without_record_are_as_before(tmp_path: Path, slice_of: Slice) -> None:
    slice_of(2)
    assert layout(tmp_path) == 1
    assert choose_layout(resolve(tiny.get_config()), None).accumulation == 1


def test_the_same_devices_have_the_same_layout(tmp_path: Path, slice_of: Slice) -> None:
    """A batch of 48 in groups of 8 fits three of four devices at once, and four in three micro-batches."""
    slice_of(4)
    fields = {"batch_size": 48, "model.group_size": 8}
    store_layout(tmp_path, DeviceLayout(4, 3, 1, most_images=16))
    assert layout(tmp_path, **fields) == 1
    store_layout(tmp_path, DeviceLayout(8, 3, 1, most_images=16))
    assert layout(tmp_path, **fields) == 3


@given(
    groups=st.integers(1, 12),
    group_size=st.integers(1, 12),
    available=st.integers(1, 16),
    most_images=st.integers(1, 40),
)
def test_the_choice_is_the_largest_number_of_devices_that_holds_no_more_images(
    groups: int, group_size: int, available: int, most_images: int
) -> None:
    batch_size = groups * group_size
    config = resolve(tiny.get_config(batch_size=batch_size, **{"model.group_size": group_size}))
    ways = {
        (devices, parts): batch_size // parts // devices
        for devices in range(1, available + 1)
        for parts in range(1, batch_size + 1)
        if groups % parts == 0 and fits(batch_size // parts, group_size, devices)
    }
    chosen = choose_accumulation(config, range(available, 0, -1), most_images=most_images)
    assert chosen in ways
    small = [way for way, images in ways.items() if images <= most_images]
    if small:
        assert chosen == max(small, key=lambda way: (way[0], -way[1]))
    else:
        assert ways[chosen] == min(ways.values())


def test_several_processes_are_told_the_numbers_that_work(
    tmp_path: Path, slice_of: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_layout(tmp_path, DeviceLayout(8, 8, 1, most_images=2))
    slice_of(6)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(
        DeviceError,
        match=r"a batch of 16 in groups of 4 cannot be cut over the 6 devices of 3 processes, in any number "
        r"of micro-batches; resume with N processes of 2 devices each, N of 1, 2$",
    ):
        layout(tmp_path)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(DeviceError, match=r"resume with --config.run.devices=N, N of 2, 4$"):
        layout(tmp_path)
    slice_of(4)
    assert layout(tmp_path) == 2


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    for text in ("", "[]", '{"format_version": 1}', '{"format_version": 1, "available": 0}'):
        (tmp_path / LAYOUT_RECORD).write_text(text)
        with pytest.raises(UsageError, match=r"devices.json is damaged; delete it"):
            read_layout(tmp_path)
    (tmp_path / LAYOUT_RECORD).write_text('{"format_version": 2}')
    with pytest.raises(UsageError, match="upgrade resnet-jax"):
        read_layout(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "drawn"),
    [
        ("cifar_resnet8", {"group_size": 4}, False),
        ("cifar_resnet8", {"variants": ("stochastic_depth:0.8",)}, True),
        ("vgg16", {}, True),
    ],
)
def test_networks_that_draw_random_numbers_are_noticed(
    name: str, options: dict[str, Any], drawn: bool
) -> None:
    side = 32 if name == "cifar_resnet8" else 224
    model = create_model(name, num_classes=10, **options)
    assert draws_random_numbers(model, (8, side, side, 3)) == drawn
