"""Which devices a run takes, this process's share of the batch, and settings for a CPU's full speed."""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int32

from resnet_jax.errors import UsageError

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # M_… of glibc's malloc.h.


class DeviceError(UsageError, ValueError):
    """A number of devices, or a mapping, that the batch or the machine does not allow."""


def fits(batch_size: int, group_size: int | None, devices: int) -> bool:
    """Tells whether a global batch can be cut over the devices, and its groups of statistics with it."""
    if batch_size % devices:
        return False
    images = batch_size // devices
    return (
        not group_size
        or images % group_size == 0
        or (group_size % images == 0 and batch_size % group_size == 0)
    )


def prepare_backend(
    batch_size: int, group_size: int | None, requested: int | None = None, *, processes: int = 1
) -> None:
    """Gives the CPU one device per core and keeps its memory; other platforms do not notice.

    XLA's multi-threaded gradient of a convolution is slower than one device per core with half the batch
    each. The number is the largest that fits the batch and is at most the number of cores that this process
    may use.

    Args:
        batch_size: Images in the global batch.
        group_size: Images per group of batch normalization, None for all.
        requested: Devices of all processes together that the user asks for, None for the rule above.
        processes: Their number; each gets as many devices.
    """
    keep_freed_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    best = next(n for n in range(cores, 0, -1) if n == 1 or fits(batch_size, group_size, n * processes))
    with contextlib.suppress(RuntimeError):  # JAX is in use already: choose_devices takes from what there is.
        jax.config.update("jax_num_cpu_devices", max(1, requested // processes) if requested else best)


def choose_devices(batch_size: int, group_size: int | None, requested: int | None = None) -> list[jax.Device]:
    """Returns the devices of a run, by process: all, or `requested`, or on one process the most that fit.

    Raises:
        DeviceError: The batch, or its groups, cannot be cut over the devices.
    """
    if group_size and batch_size % group_size:
        below = batch_size // group_size * group_size
        raise DeviceError(
            f"batch_size {batch_size} is not divisible by model.group_size {group_size}, the images per "
            f"group of batch normalization; the nearest batch sizes are {below or group_size} and "
            f"{below + group_size}"
        )
    available, processes = jax.devices(), jax.process_count()
    if requested is not None and requested > len(available):
        where = "this machine has" if processes == 1 else f"{processes} processes have"
        raise DeviceError(
            f"run.devices is {requested}, and {where} {len(available)}; allowed are 1 to {len(available)}"
        )
    if requested is not None and requested % processes:
        raise DeviceError(
            f"run.devices is {requested}; with {processes} processes it must be a multiple of {processes}"
        )
    count = requested or len(available)
    if not requested and processes == 1:
        count = next(n for n in range(count, 0, -1) if n == 1 or fits(batch_size, group_size, n))
    if not fits(batch_size, group_size, count):
        legal = [
            n for n in range(processes, len(available) + 1, processes) if fits(batch_size, group_size, n)
        ]
        raise DeviceError(
            f"a batch of {batch_size} in groups of {group_size or batch_size} does not fit {count} devices; "
            f"numbers that fit are {', '.join(map(str, legal)) or 'none'}"
        )
    chosen: list[jax.Device] = []
    for process in range(processes):
        own = [device for device in available if device.process_index == process]
        chosen += own[: count // processes] if requested else own
    chosen = chosen[:count]
    keep_to_cores([device for device in chosen if device.process_index == jax.process_index()])
    return chosen


def process_share(
    batch_size: int, devices: Sequence[jax.Device], *, parts: int = 1
) -> Int32[np.ndarray, " b"]:
    """Returns this process's positions of a global batch, in the order that its devices take them.

    Every part of the batch is a slice of it that is spread over all devices; a device has its share of the
    first part, then of the second, and so on.

    Args:
        batch_size: Size of the global batch.
        devices: Devices of all processes, in the order of the global batch.
        parts: That the batch is computed in, one after the other.

    Raises:
        DeviceError: The batch does not divide by devices and parts, or this process has none of the devices.
    """
    if batch_size % (len(devices) * parts):
        raise DeviceError(
            f"a batch of {batch_size} does not divide by {len(devices)} devices and {parts} parts"
        )
    own = [number for number, device in enumerate(devices) if device.process_index == jax.process_index()]
    if not own:
        raise DeviceError(f"process {jax.process_index()} has none of the {len(devices)} devices of the run")
    positions = np.arange(batch_size, dtype=np.int32).reshape(parts, len(devices), -1)
    return positions[:, own].swapaxes(0, 1).reshape(-1)


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory if JAX has only a CPU; does nothing with another C library.

    XLA allocates the buffers of a program again at every run, and the system clears each of their pages: for
    ResNet-50 370,000 pages a step. Large blocks are kept too, in one arena, since the other arenas give their
    memory back whatever their settings are. Call it before JAX starts its threads, each of which keeps the
    arena that it begins with. A few runs get fresh pages anyway: glibc needs somewhat more than the size to
    align a block, so that it passes over a freed one of exactly that size.
    """
    if not (sys.platform == "linux" and _cpu_alone()):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def keep_to_cores(devices: Sequence[jax.Device]) -> None:
    """Keeps each of XLA's threads on its own core, if this process has a CPU device per core; on Linux.

    Otherwise the system runs two devices' programs on one core at times, and the step takes twice as long.
    """
    tasks = Path("/proc/self/task")
    linux = sys.platform == "linux" and tasks.is_dir()
    cores = sorted(os.sched_getaffinity(0)) if linux else []
    if len(cores) < 2 or len(devices) != len(cores) or any(device.platform != "cpu" for device in devices):
        return
    for number, thread in enumerate(sorted(int(t.name) for t in tasks.iterdir() if _runs_programs(t))):
        # Where it is not allowed, the step is slower at times, and nothing else.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, [cores[number % len(cores)]])


def _runs_programs(task: Path) -> bool:
    try:
        return (task / "comm").read_text().strip() == "tf_XLAEigen"
    except OSError:  # The thread ended meanwhile.
        return False


def _cpu_alone() -> bool:
    platforms = jax.config.values["jax_platforms"]
    return (
        platforms == "cpu"
        if platforms
        else not (
            importlib.util.find_spec("libtpu")
            or importlib.util.find_spec("jax_plugins")
            or importlib.metadata.entry_points(group="jax_plugins")
        )
    )
