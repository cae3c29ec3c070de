"""The same run on any topology: devices, mappings and groups of statistics do not change what is computed."""

from typing import Any

import jax
import numpy as np
import pytest

from resnet_jax.parallel import AXIS_NAME, DeviceError, create_mapping
from resnet_jax.training.checkpoints import to_arrays
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.task import Experiment, build_experiment
from tests.training.tiny import get_config

MAPPINGS = ("pmap", "shard_map")


def experiment(**changes: Any) -> Experiment:
    return build_experiment(get_config(**{"batch_size": 16, "model.dtype": "float64", **changes}))


def train(experiment: Experiment, steps: int) -> tuple[list[float], dict[str, np.ndarray]]:
    """Returns the losses of the first steps, and the arrays of the state after them."""
    state = experiment.mapping.replicate(experiment.initial_state())
    losses = []
    for step in range(steps):
        state, metrics = experiment.train_step(
            state, experiment.mapping.shard(experiment.train_batches[step])
        )
        losses.append(float(metrics["loss"]))
    return losses, {name: np.asarray(array) for name, array in to_arrays(state).items()}


def assert_close(one: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float) -> None:
    """Compares norms per array, as sums in another order make elements differ by more."""
    for name, array in one.items():
        difference = np.linalg.norm((array - other[name]).ravel().astype(np.float64))
        assert difference <= tolerance * max(1.0, np.linalg.norm(array.ravel().astype(np.float64))), name


@pytest.fixture(scope="module")
def alone() -> dict[int, tuple[list[float], dict[str, np.ndarray]]]:
    """Thirty steps on one device, by size of group."""
    jax.config.update("jax_enable_x64", True)
    results = {size: train(experiment(**{"run.devices": 1, "model.group_size": size}), 30) for size in (2, 8)}
    jax.config.update("jax_enable_x64", False)
    return results


SMALLER, SPANNING = 2, 8
COMBINATIONS = [
    pytest.param(
        mapping,
        devices,
        group_size,
        marks=[] if (mapping, devices, group_size) in DEFAULT else pytest.mark.slow,
    )
    for DEFAULT in [{("pmap", 8, SPANNING), ("shard_map", 4, SPANNING), ("shard_map", 2, SMALLER)}]
    for mapping in MAPPINGS
    for devices in (1, 2, 4, 8)
    for group_size in (SMALLER, SPANNING)
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("mapping", "devices", "group_size"), COMBINATIONS)
def test_thirty_steps_agree_on_any_number_of_devices(
    alone: dict[int, Any], mapping: str, devices: int, group_size: int
) -> None:
    spread = experiment(**{"run.devices": devices, "run.mapping": mapping, "model.group_size": group_size})
    losses, arrays = train(spread, 30)
    expected_losses, expected = alone[group_size]
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-9)
    assert_close(expected, arrays, 1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("accumulation", "devices", "mapping", "variance"),
    [
        (4, 4, "shard_map", "biased"),
        pytest.param(2, 2, "pmap", "biased", marks=pytest.mark.slow),
        pytest.param(4, 1, "pmap", "unbiased", marks=pytest.mark.slow),
        pytest.param(8, 2, "pmap", "unbiased", marks=pytest.mark.slow),
    ],
)
def test_thirty_steps_agree_in_parts(
    alone: dict[int, Any], accumulation: int, devices: int, mapping: str, variance: str
) -> None:
    options = {
        "run.devices": devices,
        "run.mapping": mapping,
        "model.group_size": SMALLER,
        "model.variance": variance,
    }
    losses, arrays = train(experiment(**options, **{"run.accumulation": accumulation}), 30)
    expected_losses, expected = alone[SMALLER] if variance == "biased" else train(experiment(**options), 30)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-9)
    assert_close(expected, arrays, 1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"run.scan": "yes", "model.name": "cifar_resnet20"}, marks=pytest.mark.slow),
        pytest.param({"optimizer.frozen": ("stage1",)}, marks=pytest.mark.slow),
    ],
)
def test_loops_of_blocks_and_frozen_modules_agree_in_parts(changes: dict[str, Any]) -> None:
    options = {"run.devices": 2, "model.group_size": SMALLER, **changes}
    expected_losses, expected = train(experiment(**options), 3)
    losses, arrays = train(experiment(**options, **{"run.accumulation": 2}), 3)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-9)
    assert_close(expected, arrays, 1e-9)


@pytest.mark.parametrize(
    ("accumulation", "group_size", "allowed"), [(3, 2, "1, 2, 4, 8"), (8, 8, "1, 2"), (2, 0, "1")]
)
def test_parts_that_cut_a_group_are_refused(accumulation: int, group_size: int, allowed: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"accumulation is {accumulation}; .*batch of 16 .*allowed are {allowed}$"
    ):
        experiment(**{"run.accumulation": accumulation, "model.group_size": group_size})


def test_the_size_of_groups_matters(alone: dict[int, Any]) -> None:
    assert abs(alone[2][0][-1] - alone[8][0][-1]) > 1e-3


@pytest.mark.parametrize("mapping", [pytest.param("pmap", marks=pytest.mark.slow), "shard_map"])
def test_one_step_in_float32_agrees(mapping: str) -> None:
    options = {"model.dtype": "float32", "model.group_size": SPANNING}
    losses, expected = train(experiment(**options, **{"run.devices": 1}), 1)
    spread_losses, arrays = train(experiment(**options, **{"run.devices": 8, "run.mapping": mapping}), 1)
    np.testing.assert_allclose(spread_losses, losses, rtol=1e-5)
    assert_close(expected, arrays, 1e-5)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_the_step_compiles_once_and_takes_the_buffers_of_the_state(mapping: str) -> None:
    compiled: list[str] = []

    def count(event: str, *_: float, **__: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    ours = experiment(**{"model.dtype": "float32", "run.devices": 2, "run.mapping": mapping})
    state = ours.mapping.replicate(ours.initial_state())
    batches = [ours.mapping.shard(ours.train_batches[step]) for step in range(4)]
    state, metrics = ours.train_step(state, batches[0])
    jax.block_until_ready(metrics)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        for batch in batches[1:]:
            before = state
            state, metrics = ours.train_step(state, batch)
        float(metrics["loss"])
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert compiled == []
    assert before.params["stem"]["conv"]["kernel"].is_deleted()


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_replicating_copies_the_host_arrays(mapping: str) -> None:
    host = np.zeros(4096, np.float32)
    placed = create_mapping(mapping, jax.devices()[:2]).replicate(host)
    host[:] = 1
    assert not np.asarray(placed).any()


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_positions_of_the_global_batch_follow_the_devices(mapping: str) -> None:
    laid = create_mapping(mapping, jax.devices()[:4])
    function = laid.map(
        lambda offset, part: jax.lax.all_gather(part + offset, AXIS_NAME, tiled=True), donate=False
    )
    result = function(laid.replicate(np.int32(5)), laid.shard(np.arange(12, dtype=np.int32)))
    np.testing.assert_array_equal(result, np.arange(12) + 5)


def test_an_unknown_mapping_is_named() -> None:
    with pytest.raises(DeviceError, match="unknown mapping 'jit'; allowed are auto, pmap and shard_map"):
        create_mapping("jit", jax.devices())
