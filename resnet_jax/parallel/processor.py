"""Settings with which a CPU computes at full speed: keep freed memory, and one core for each device."""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # M_… of glibc's malloc.h.


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory if JAX has only a CPU; does nothing with another C library.

    XLA allocates the buffers of a program anew at every run, and the system clears every page of them anew:
    for ResNet-50 370,000 pages a step. Kept are large blocks too, in one arena, since the others give their
    memory back whatever they are told. To be called before JAX starts its threads, each of which keeps the
    arena that it begins with.
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
    threads = sorted(int(task.name) for task in tasks.iterdir() if _runs_programs(task))
    for number, thread in enumerate(threads):
        # Where it is not allowed, the step is slower at times, and nothing else.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, [cores[number % len(cores)]])


def _runs_programs(task: Path) -> bool:
    try:
        return (task / "comm").read_text().strip() == "tf_XLAEigen"
    except OSError:  # The thread ended meanwhile.
        return False


def _cpu_alone() -> bool:
    if platforms := jax.config.values["jax_platforms"]:
        return platforms == "cpu"
    return not (
        importlib.util.find_spec("libtpu")
        or importlib.util.find_spec("jax_plugins")
        or importlib.metadata.entry_points(group="jax_plugins")
    )
