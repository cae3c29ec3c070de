"""Where it runs: one per-device function, mapped over devices and processes."""

from resnet_jax.parallel.distributed import DeviceError, choose_devices, prepare_backend, process_share
from resnet_jax.parallel.mapping import AXIS_NAME, Mapping, create_mapping
from resnet_jax.parallel.processes import ProcessError, Processes

__all__ = [
    "AXIS_NAME",
    "DeviceError",
    "Mapping",
    "ProcessError",
    "Processes",
    "choose_devices",
    "create_mapping",
    "prepare_backend",
    "process_share",
]
