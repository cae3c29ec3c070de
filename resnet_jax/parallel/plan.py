"""Compiles a step for a TPU slice that need not exist here, and reports what the compiler expects of it.

The TPU compiler comes with libtpu and runs on any x86-64 host. Nothing here is a measurement: memory is what
the compiler allocates, time is its sum of cycles or the roofline, whichever is longer, and knows nothing of
communication or of the input.
"""

import dataclasses
import functools
import importlib.util
import os
import re
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resnet_jax.parallel.chips import Topology
from resnet_jax.parallel.compiled import Collective, read_program
from resnet_jax.parallel.distributed import DeviceError
from resnet_jax.parallel.mapping import AXIS_NAME, PerDevice, PyTree, create_mapping

_ENVIRONMENT = {  # No search for TPUs and metadata of the cloud; libtpu beside another process.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiler's figures of a step, by device; FLOPs, bytes and cycles are 0 if it does not fit.

    Attributes:
        fits: The program was compiled; otherwise it needs more memory than there is.
        argument_bytes, temporary_bytes: Memory for the state and the batch, and for what lives during the
            step.
        peak_bytes: Peak of allocated memory: arguments, temporaries, and results that are not in place
            of arguments; where it does not fit, what the compiler says that it needs, in part or in all.
        available_bytes: Memory that a program may have, if the compiler names it: less than the chip
            has.
        flops, bytes_accessed: Operations, and bytes moved; of loops, scaled as cycles are.
        cycles: The sum of the compiler's estimates, without communication.
        collectives: By kind.
    """

    fits: bool
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    available_bytes: int | None = None
    flops: float = 0.0
    bytes_accessed: float = 0.0
    cycles: int = 0
    collectives: Mapping[str, Collective] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of a step by three estimates, and the longest: "arithmetic", "bandwidth" or "cycles"."""

    arithmetic: float
    bandwidth: float
    cycles: float | None

    @property
    def seconds(self) -> float:
        """The longest of the three."""
        return max(self.arithmetic, self.bandwidth, self.cycles or 0.0)

    @property
    def bound(self) -> str:
        """What binds of the chip: "arithmetic" or "bandwidth"."""
        return "arithmetic" if self.arithmetic >= self.bandwidth else "bandwidth"


def prepare_compiler() -> None:
    """Sets JAX to the CPU and libtpu to compile only; before JAX is used for the first time.

    Raises:
        DeviceError: libtpu is not installed.
    """
    if not (importlib.util.find_spec("libtpu") or os.environ.get("TPU_LIBRARY_PATH")):
        raise DeviceError(
            "a plan needs libtpu, the TPU compiler, which is not installed: pip install 'resnet-jax[tpu]'"
        )
    os.environ.update(_ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")


@functools.cache
def devices_of(topology: Topology) -> tuple[jax.Device, ...]:
    """Returns the devices of a slice, to compile for; `prepare_compiler` comes first.

    Raises:
        DeviceError: The compiler refuses the slice.
    """
    # A host has 2 × 2 chips unless the slice is smaller.
    bounds = {} if topology.chips > 1 else {"chips_per_host_bounds": (1, 1, 1)}
    try:
        return tuple(
            topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **bounds).devices
        )
    except jax.errors.JaxRuntimeError as error:
        raise DeviceError(
            f"the TPU compiler refuses the topology {topology.name}: {' '.join(str(error).split())}"
        ) from error


def compile_step(
    function: PerDevice, replicated: PyTree, batch: PyTree, devices: Sequence[jax.Device]
) -> Compiled:
    """Compiles a step as `shard_map` maps it over the devices, with its state donated.

    Args:
        function: (replicated, a device's part of the batch) → what is the same on every device.
        replicated: Shapes and dtypes of the first argument.
        batch: Shapes and dtypes of the global batch.
        devices: Devices that `devices_of` returned.
    """
    mesh = Mesh(np.array(devices), (AXIS_NAME,))
    step = create_mapping("shard_map", devices).map(function, donate=True)
    lowered = step.lower(  # type: ignore[attr-defined]
        _placed(replicated, NamedSharding(mesh, PartitionSpec())),
        _placed(batch, NamedSharding(mesh, PartitionSpec(AXIS_NAME))),
    )
    size = sum(_bytes(leaf) for leaf in jax.tree.leaves(replicated)) + sum(
        map(_bytes, jax.tree.leaves(batch))
    ) // len(devices)
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed = _size(r"Used |HLO temporaries \(", str(error)) or size
        available = _size(r"of |available HBM \(", str(error))
        return Compiled(False, size, max(0, needed - size), needed, available)
    memory, cost, read = program.memory_analysis(), program.cost_analysis(), read_program(program.as_text())
    repeated = read.cycles / read.cycles_once if read.cycles_once else 1.0
    return Compiled(
        fits=True,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
        flops=cost["flops"] * repeated,
        bytes_accessed=cost["bytes accessed"] * repeated,
        cycles=read.cycles,
        collectives=read.collectives,
    )


def roofline(compiled: Compiled, topology: Topology) -> Roofline:
    """Returns the shortest time of a step at peak speed, at peak bandwidth, and by the compiler's cycles."""
    chip = topology.chip
    return Roofline(
        compiled.flops * chip.devices / chip.peak_flops,
        compiled.bytes_accessed * chip.devices / chip.bandwidth,
        compiled.cycles / chip.clock if chip.clock else None,
    )


def largest_that_fits(
    tried: Compiled,
    size: int,
    allowed: Sequence[int],
    compiled: Callable[[int], Compiled],
    *,
    capacity: int,
    attempts: int = 3,
) -> int | None:
    """Returns the largest size that was compiled and fits, in a few compilations; None if none of them did.

    Memory is taken to be in proportion to the size, which gives the next size to try. One that fits is the
    answer; one that does not gives the next in the same way. So a larger one may fit, but what is returned
    does.

    Args:
        tried: A compilation that does not fit.
        size: Size of its batch.
        allowed: Sizes that are legal.
        compiled: Compiles another.
        capacity: Bytes of a device.
        attempts: Compilations at most.
    """
    for _ in range(attempts):
        smaller = [other for other in allowed if other < size]
        if not smaller:
            return None
        room = capacity / max(tried.peak_bytes, capacity * 1.02)
        size = max((other for other in smaller if other <= size * room), default=min(smaller))
        tried = compiled(size)
        if tried.fits:
            return size
    return None


def _placed(tree: PyTree, sharding: NamedSharding) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return int(np.prod(leaf.shape, dtype=np.int64)) * leaf.dtype.itemsize


def _size(before: str, text: str) -> int | None:
    match = re.search(rf"(?:{before})(\d+(?:\.\d+)?)([KMGT])", text)
    return int(float(match[1]) * 2 ** (10 * (1 + "KMGT".index(match[2])))) if match else None
