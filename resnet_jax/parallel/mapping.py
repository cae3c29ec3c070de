"""One per-device function, two ways to map it over devices: `jax.pmap`, or `jax.jit` of `jax.shard_map`.

The function is written once against the axis AXIS_NAME. Its first argument is replicated (a state,
variables), its second is this device's part of the global batch; what it returns must be the same on every
device, as `lax.psum` makes it. Both mappings give the same numbers. Replicated trees have no leading device
axis under either.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resnet_jax.parallel.distributed import DeviceError

AXIS_NAME = "batch"
"""The mapped axis: position in it times the size of a device's part is the position in the global batch."""

PyTree = Any
PerDevice = Callable[[PyTree, PyTree], PyTree]


class Mapping(Protocol):
    """A set of devices, and how functions and values are laid over them."""

    @property
    def devices(self) -> Sequence[jax.Device]:
        """All devices, of all processes, in the order of the global batch."""

    def replicate(self, tree: PyTree) -> PyTree:
        """Places copies of host arrays, the same on every process, as the replicated argument."""

    def shard(self, batch: PyTree) -> PyTree:
        """Places this process's part [b, …] of a global batch, in order, as the second argument."""

    def map(self, function: PerDevice, *, donate: bool) -> PerDevice:
        """Compiles `function(replicated, part)`; `donate` gives up the first argument's buffers."""


def create_mapping(kind: str, devices: Sequence[jax.Device]) -> Mapping:
    """Returns the mapping of that kind over `devices`.

    Args:
        kind: "pmap", "shard_map", or "auto": pmap on one process and shard_map on several, where pmap
            converts between host-local and global arrays at every call.
        devices: Devices of all processes, those of one process together.

    Raises:
        DeviceError: The kind does not exist.
    """
    if kind not in ("auto", "pmap", "shard_map"):
        raise DeviceError(f"unknown mapping {kind!r}; allowed are auto, pmap and shard_map")
    by_pmap = kind == "pmap" or (kind == "auto" and jax.process_count() == 1)
    return (PmapMapping if by_pmap else ShardMapMapping)(tuple(devices))


@dataclasses.dataclass(frozen=True)
class PmapMapping:
    """`jax.pmap`, with the replicated argument unmapped (`in_axes` None)."""

    devices: Sequence[jax.Device]

    @property
    def _local(self) -> Mesh:
        return Mesh(
            np.array([d for d in self.devices if d.process_index == jax.process_index()]), (AXIS_NAME,)
        )

    def replicate(self, tree: PyTree) -> PyTree:
        return _put_copy(tree, NamedSharding(self._local, PartitionSpec()))

    def shard(self, batch: PyTree) -> PyTree:
        mesh = self._local
        return jax.device_put(
            jax.tree.map(lambda x: x.reshape(mesh.size, -1, *x.shape[1:]), batch),
            NamedSharding(mesh, PartitionSpec(AXIS_NAME)),
        )

    def map(self, function: PerDevice, *, donate: bool) -> PerDevice:
        several = jax.process_count() > 1
        return jax.pmap(
            function,
            AXIS_NAME,
            in_axes=(None, 0),
            out_axes=None,
            devices=None if several and len(self.devices) == jax.device_count() else self.devices,
            donate_argnums=(0,) if donate else (),
        )


@dataclasses.dataclass(frozen=True)
class ShardMapMapping:
    """`jax.jit` of `jax.shard_map` over a mesh of one axis, on global arrays."""

    devices: Sequence[jax.Device]

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS_NAME,))

    def replicate(self, tree: PyTree) -> PyTree:
        sharding = NamedSharding(self._mesh, PartitionSpec())
        if jax.process_count() == 1:
            return _put_copy(tree, sharding)
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(np.shape(x), sharding, lambda index: np.array(x[index])),
            tree,
        )

    def shard(self, batch: PyTree) -> PyTree:
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS_NAME))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)

    def map(self, function: PerDevice, *, donate: bool) -> PerDevice:
        # With the check of varying axes on, `grad` and then `pmean` gives as many times the gradient as there
        # are devices.
        return jax.jit(
            jax.shard_map(
                function,
                mesh=self._mesh,
                in_specs=(PartitionSpec(), PartitionSpec(AXIS_NAME)),
                out_specs=PartitionSpec(),
                check_vma=False,
            ),
            donate_argnums=(0,) if donate else (),
        )


def _put_copy(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Places a copy of a tree: on CPU `device_put` aliases host arrays, whatever `may_alias` says."""
    return jax.device_put(jax.tree.map(np.array, tree), sharding)
