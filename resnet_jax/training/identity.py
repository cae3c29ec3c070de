"""What must be the same on all processes of a run, so that they make the same steps of the same experiment."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import jax

from resnet_jax.training.config import Config, flat_fields
from resnet_jax.training.experiment import Experiment

PACKAGES = ("resnet-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
OF_A_HOST = ("run.data_dir", "run.workers", "run.worker_processes", "run.read_ahead")
"""Fields that may differ between hosts."""


def of_command(config: Config) -> dict[str, Any]:
    """Returns the fields of a config, and the versions that it is run with; JAX's devices are not touched."""
    fields = {f"config.{name}": value for name, value in flat_fields(config).items() if name not in OF_A_HOST}
    return (
        fields
        | {f"version of {name}": version(name) for name in PACKAGES}
        | {"version of python": platform.python_version()}
    )


def of_machine(saved: Sequence[int]) -> dict[str, Any]:
    """Returns this process's devices, and the steps of the checkpoints that it sees in the workdir."""
    devices = jax.local_devices()
    kind = f"{devices[0].platform}, {devices[0].device_kind}"
    return {
        "number of devices": len(devices),
        "kind of device": kind,
        "checkpoints seen in the workdir": list(saved),
    }


def of_data(experiment: Experiment) -> dict[str, Any]:
    """Returns how much data a process sees."""
    train, test = experiment.train, experiment.test_batches.source
    shape = list(train.image_shape)
    return {
        "training examples": len(train),
        "test examples": len(test),
        "classes": len(train.class_names),
        "image shape": shape,
    }
