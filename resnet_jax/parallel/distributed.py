"""Which devices a run takes, and this process's share of the global batch."""

import contextlib
import os

import jax

_CPU_DEVICES = "jax_num_cpu_devices"


class DeviceError(ValueError):
    """A number of devices, or a mapping, that the batch or the machine does not allow."""


def fits(batch_size: int, group_size: int | None, devices: int) -> bool:
    """Tells whether a global batch can be cut over the devices, and its groups of statistics with it."""
    if batch_size % devices:
        return False
    images = batch_size // devices
    return not group_size or images % group_size == 0 or (group_size % images == 0 and batch_size % group_size == 0)


def prepare_backend(batch_size: int, group_size: int | None, requested: int = 0) -> None:
    """Gives the CPU one device per core, before JAX is used for the first time; other platforms do not notice.

    XLA's multi-threaded gradient of a convolution is slower than one device per core with half the batch each. The number is
    the largest that fits the batch and is at most the number of cores that this process may use.

    Args:
        batch_size: Images in the global batch.
        group_size: Images per group of batch normalisation, None for all.
        requested: Devices that the user asks for, 0 for the rule above.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = requested or next(n for n in range(cores, 0, -1) if n == 1 or fits(batch_size, group_size, n))
    with contextlib.suppress(RuntimeError):  # JAX is in use already: choose_devices takes from what there is.
        jax.config.update(_CPU_DEVICES, count)


def choose_devices(batch_size: int, group_size: int | None, requested: int = 0) -> list[jax.Device]:
    """Returns the devices that a run takes: all, or `requested`, or on one process the most that fit the batch.

    Raises:
        DeviceError: The batch, or its groups, cannot be cut over the devices.
    """
    if group_size and batch_size % group_size:
        raise DeviceError(
            f"batch_size {batch_size} is not divisible by model.group_size {group_size}, the images per group of batch "
            f"normalisation; the nearest batch sizes are {batch_size // group_size * group_size or group_size} and "
            f"{(batch_size // group_size + 1) * group_size}"
        )
    available = jax.devices()
    if requested > len(available):
        raise DeviceError(f"run.devices is {requested}, and this machine has {len(available)}; allowed are 1 to {len(available)}")
    count = requested or len(available)
    if not requested and jax.process_count() == 1:
        count = next(n for n in range(count, 0, -1) if n == 1 or fits(batch_size, group_size, n))
    if not fits(batch_size, group_size, count):
        legal = [n for n in range(1, len(available) + 1) if fits(batch_size, group_size, n)]
        raise DeviceError(
            f"a batch of {batch_size} in groups of {group_size or batch_size} does not fit {count} devices; "
            f"numbers that fit are {', '.join(map(str, legal))}"
        )
    return available[:count]


def process_share(batch_size: int) -> slice:
    """Returns this process's contiguous part of the positions of a global batch.

    Raises:
        DeviceError: The batch does not divide by the number of processes.
    """
    processes = jax.process_count()
    if batch_size % processes:
        raise DeviceError(f"a batch of {batch_size} does not divide by {processes} processes")
    share = batch_size // processes
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)
