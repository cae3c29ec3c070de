"""What is read of compiled programs, compared with programs whose work is known.

Rooflines and the search on closed forms.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from resnet_jax.parallel import AXIS_NAME, DeviceError
from resnet_jax.parallel import plan as planning
from resnet_jax.parallel.chips import parse_topology
from resnet_jax.parallel.compiled import Collective, read_program
from resnet_jax.parallel.plan import Compiled, compile_step, largest_that_fits, roofline

PROGRAM = """HloModule step, entry_computation_layout={()->f32[]}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %f = f32[4]{0:T(128)} fusion(%p), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"10"}}
  %r = (bf16[2,8]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/f32[]{:T(128)}) all-reduce(%f, %g), channel_id=1, to_apply=%add
}

%condition (p: (s32[], f32[4])) -> pred[] {
  %bound = s32[]{:T(128)} constant(7), metadata={op_name="while"}
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

%unknown (p: (s32[], f32[4])) -> pred[] {
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[4]) -> f32[] {
  %w = (s32[]{:T(128)}, f32[4]{0}) while(%t), condition=%condition, body=%body, metadata={op_name="x/while"}
  %v = (s32[]{:T(128)}, f32[4]{0}) while(%w), condition=%unknown, body=%body
  %s = (f32[4]{0}, f32[8]{0}) all-gather-start(%a), channel_id=2, dimensions={0}
  %d = f32[8]{0} all-gather-done(%s)
  ROOT %c = f32[] fusion(%d), calls=%fused, backend_config={"window_config":{"estimated_cycles":"100"}}
}
"""


def test_loops_count_as_often_as_they_run_and_collectives_by_their_results() -> None:
    read = read_program(PROGRAM)
    assert (read.cycles, read.cycles_once) == (100 + 7 * 10 + 10, 120)
    assert read.collectives == {
        "all-reduce": Collective(8, 8 * (2 * 8 * 2 + 4)),
        "all-gather": Collective(1, 32),
    }


def step(state: Any, batch: Any) -> Any:
    def layer(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
        return lax.psum(x @ kernel, AXIS_NAME), None

    return {"kernels": state["kernels"] + 1, "sum": lax.scan(layer, batch["x"], state["kernels"])[0].sum()}


def test_a_step_is_compiled_with_the_memory_and_the_collectives_that_it_has() -> None:
    devices = jax.devices()
    shape = jax.ShapeDtypeStruct
    state = {"kernels": shape((5, 32, 32), jnp.float32), "sum": shape((), jnp.float32)}
    compiled = compile_step(step, state, {"x": shape((4 * len(devices), 32), jnp.float32)}, devices)
    assert compiled.fits
    assert compiled.argument_bytes == pytest.approx(4 * (5 * 32 * 32 + 4 * 32), abs=8)
    # Donated, the results are in place of the arguments, but for a table of pointers and a scalar.
    assert compiled.peak_bytes == pytest.approx(compiled.argument_bytes + compiled.temporary_bytes, abs=32)
    assert compiled.collectives == {"all-reduce": Collective(5, 5 * 4 * 4 * 32)}
    # A CPU's text has no cycles to scale by: the body is counted once, here 2 · 4 · 32 · 32 and little else.
    assert compiled.flops == pytest.approx(2 * 4 * 32 * 32, rel=0.8)


@pytest.mark.parametrize(
    ("flops", "moved", "cycles", "seconds", "bound"),
    [
        (197e12, 0, 0, 1.0, "arithmetic"),
        (197e12, 1638e9, 0, 2.0, "bandwidth"),
        (197e12, 1638e9, 4_500_000_000, 3.0, "bandwidth"),
    ],
)
def test_a_step_takes_the_longest_of_arithmetic_bandwidth_and_cycles(
    flops: float, moved: float, cycles: int, seconds: float, bound: str
) -> None:
    time = roofline(Compiled(True, 0, 0, 0, None, flops, moved, cycles), parse_topology("v5e:2x2"))
    assert (time.seconds, time.bound) == (pytest.approx(seconds), bound)


def test_a_device_that_is_half_a_chip_has_half_its_peak() -> None:
    time = roofline(Compiled(True, 0, 0, 0, None, 137.5e12, 0, 0), parse_topology("v4:2x2x1"))
    assert time.seconds == pytest.approx(1)
    assert roofline(Compiled(True, 0, 0, 0, None, 918e12, 0, 9), parse_topology("v6e:2x2")).cycles is None


def test_the_search_compiles_little_and_returns_what_fits() -> None:
    compiled = []

    def memory(size: int) -> Compiled:
        compiled.append(size)
        needed = 100 + 10 * size
        return Compiled(needed <= 1000, 0, 0, needed)

    allowed = list(range(8, 401, 8))
    found = largest_that_fits(memory(400), 400, allowed, memory, capacity=1000)
    assert compiled == [400, 96, 88]  # The legal sizes below 400 · 1000 / 4100 and 96 · 1000 / 1060.
    assert found == 88
    assert largest_that_fits(memory(8), 8, allowed, memory, capacity=1) is None


def test_without_libtpu_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning.importlib.util, "find_spec", lambda _: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(DeviceError, match=r"pip install 'resnet-jax\[tpu\]'"):
        planning.prepare_compiler()


@pytest.mark.parametrize(
    ("message", "needed", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: total memory required for HLO temporaries (40.25G) exceeds available HBM "
            "(15.75G).",
            40.25,
            15.75,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.20G of 15.75G hbm.",
            21.2,
            15.75,
        ),
    ],
)
def test_the_compilers_refusal_is_read(
    message: str, needed: float, available: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    shape = jax.ShapeDtypeStruct
    state = {"kernels": shape((5, 32, 32), jnp.float32), "sum": shape((), jnp.float32)}
    compiled = compile_step(step, state, {"x": shape((32, 32), jnp.float32)}, jax.devices())
    assert not compiled.fits
    assert (compiled.peak_bytes, compiled.available_bytes) == (int(needed * 2**30), int(available * 2**30))
