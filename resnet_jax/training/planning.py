"""Memory, time and cost of a recipe on a TPU slice, as the TPU compiler estimates them."""

import dataclasses
from typing import Any

from resnet_jax.parallel import DeviceError
from resnet_jax.parallel.chips import Topology
from resnet_jax.parallel.distributed import fits
from resnet_jax.parallel.plan import Compiled, Roofline, compile_step, devices_of, largest_that_fits, roofline
from resnet_jax.training.config import Config
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.save_time import ASSUMED, TPU_VM_GRACE, Bandwidth, SaveTime, state_bytes
from resnet_jax.training.task import open_task

NOTE = (
    "an estimate of the TPU compiler, not a measurement: communication, input, evaluation and saving are "
    "left out, and a step on hardware takes longer"
)

ESTIMATES = (
    "flops",
    "bytes_accessed",
    "cycles",
    "arithmetic_seconds",
    "bandwidth_seconds",
    "cycles_seconds",
    "bound_by",
    "step_seconds_estimate",
    "images_per_second_estimate",
    "hours_estimate",
    "cost_estimate",
    "collectives",
)
"""What is known of a program that fits."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A recipe on a slice.

    Attributes:
        topology: The slice.
        devices: Number of its devices, as JAX lists them.
        batch_size: Global batch size.
        compiled: By device.
        time: Time of a step.
        steps: Number of steps of the recipe.
        price: Price of a chip for an hour; 0 if it is not given.
        largest_batch: Largest global batch that fits; None if none was found or looked for.
        stand_in: The data set is not here: its image size and classes are those of the recipe's synthetic
            data.
        save: A save of the state.
    """

    topology: Topology
    devices: int
    batch_size: int
    compiled: Compiled
    time: Roofline
    steps: int
    price: float
    largest_batch: int | None
    stand_in: bool
    save: SaveTime

    def to_json(self) -> dict[str, Any]:
        """Returns the plan by chip, with what it is of.

        Times, FLOPs, bytes and cycles are null where it does not fit.
        """
        compiled, chip = self.compiled, self.topology.chip
        return {
            "topology": self.topology.name,
            "chips": self.topology.chips,
            "devices": self.devices,
            "batch_size": self.batch_size,
            "batch_per_chip": self.batch_size / self.topology.chips,
            "fits": compiled.fits,
            "largest_batch_that_fits": self.batch_size if compiled.fits else self.largest_batch,
            "hbm_bytes": compiled.peak_bytes * chip.devices,
            "hbm_argument_bytes": compiled.argument_bytes * chip.devices,
            "hbm_temporary_bytes": compiled.temporary_bytes * chip.devices,
            "hbm_capacity_bytes": chip.hbm_bytes,
            **(self._estimates() if compiled.fits else dict.fromkeys(ESTIMATES)),
            "steps": self.steps,
            "save": self.save.to_json(),
            "data_is_stand_in": self.stand_in,
            "note": NOTE,
        }

    def _estimates(self) -> dict[str, Any]:
        compiled, time, chip = self.compiled, self.time, self.topology.chip
        hours = self.steps * time.seconds / 3600
        values = (
            compiled.flops * chip.devices,
            compiled.bytes_accessed * chip.devices,
            compiled.cycles,
            time.arithmetic,
            time.bandwidth,
            time.cycles,
            time.bound,
            time.seconds,
            self.batch_size / time.seconds,
            hours,
            hours * self.topology.chips * self.price if self.price else None,
            {kind: dataclasses.asdict(one) for kind, one in compiled.collectives.items()},
        )
        return dict(zip(ESTIMATES, values, strict=True))


def make_plan(
    config: Config,
    topology: Topology,
    *,
    price: float = 0.0,
    classes: int | None = None,
    search: bool = True,
    bandwidth: Bandwidth = ASSUMED,
    grace_seconds: float = TPU_VM_GRACE,
) -> Plan:
    """Compiles the training step of a recipe for a slice; `prepare_compiler` comes first.

    Args:
        config: Resolved.
        topology: The slice.
        price: Price of a chip for an hour.
        classes: Number of classes. Defaults to the dataset's, or to the synthetic data's if it is not at
            hand.
        search: If it does not fit, look for the largest batch that does, by up to three further
            compilations.
        bandwidth: What a checkpoint is written with.
        grace_seconds: Seconds from SIGTERM to the end of a preempted machine.

    Raises:
        DeviceError: The compiler refuses the slice, or the batch cannot be cut over its devices.
        ConfigError: TPUs cannot compute what is asked for.
    """
    if config.model.dtype == "float64":
        raise ConfigError(
            "config.model.dtype is 'float64', which TPUs do not have; it must be float32 or bfloat16"
        )
    devices = devices_of(topology)
    group_size = config.model.group_size
    batch_size = config.batch_size
    legal = [
        size
        for size in range(len(devices), batch_size + 1, len(devices))
        if fits(size, group_size, len(devices))
    ]
    if batch_size not in legal:
        nearest = (
            f"the nearest smaller one is {legal[-1]}"
            if legal
            else f"the smallest is {_smallest(group_size, len(devices))}"
        )
        raise DeviceError(
            f"batch_size {batch_size} in groups of {group_size or batch_size} cannot be cut over the "
            f"{len(devices)} devices of {topology.name}; {nearest} (--set batch_size=N)"
        )
    training = open_task(config).abstract(config, classes=classes)

    def compiled(size: int) -> Compiled:
        return compile_step(training.train_step, training.state, training.batch(size), devices)

    first, largest = compiled(batch_size), None
    if search and not first.fits:
        capacity = first.available_bytes or topology.chip.hbm_bytes // topology.chip.devices
        largest = largest_that_fits(first, batch_size, legal, compiled, capacity=capacity)
    time = roofline(first, topology)
    return Plan(
        topology=topology,
        devices=len(devices),
        batch_size=batch_size,
        compiled=first,
        time=time,
        steps=config.run.steps,
        price=price,
        largest_batch=largest,
        stand_in=training.stand_in,
        save=SaveTime(
            checkpoint_bytes=state_bytes(training.state),
            bandwidth=bandwidth,
            grace_seconds=grace_seconds,
            checkpoint_every=config.run.checkpoint_every,
            step_seconds=time.seconds if first.fits else None,
        ),
    )


def _smallest(group_size: int | None, devices: int) -> int:
    return next(
        size
        for size in range(devices, devices * (group_size or 1) + 1, devices)
        if fits(size, group_size, devices)
    )
