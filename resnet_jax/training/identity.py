"""What must be the same on all processes of a run, for them to make the same steps."""

import platform
from collections.abc import Sequence
from importlib.metadata import version

import jax

from resnet_jax.training.config import Config, flat_fields

PACKAGES = ("resnet-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
OF_A_HOST = ("run.data_dir", "run.workers", "run.worker_processes", "run.read_ahead")
"""Fields that may differ between hosts."""


def of_command(config: Config) -> dict[str, object]:
    """Returns the fields of a config, and the versions that it is run with; JAX's devices are not touched."""
    fields = {f"config.{name}": value for name, value in flat_fields(config).items() if name not in OF_A_HOST}
    return (
        fields
        | {f"version of {name}": version(name) for name in PACKAGES}
        | {"version of python": platform.python_version()}
    )


def of_machine(saved: Sequence[int]) -> dict[str, object]:
    """Returns this process's devices, and the steps of the checkpoints that it sees in the workdir."""
    devices = jax.local_devices()
    return {
        "number of devices": len(devices),
        "kind of device": f"{devices[0].platform}, {devices[0].device_kind}",
        "checkpoints seen in the workdir": list(saved),
    }
