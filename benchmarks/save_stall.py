"""How long a save of ResNet-50's state holds the training loop, against a copy of the state and a step.

    python benchmarks/save_stall.py
    python benchmarks/save_stall.py --batch 32 --size 224 --repetitions 5 --json

A loop makes steps, as a run does, and saves when the save before is on the disk. What is timed is how long
`CheckpointWriter.save` keeps the loop, all steps before it being finished; the peers, in turns with it, are a
copy of every array to host memory and a step with nothing in the background. The steps while the save is
written and its sums are computed are timed too: where the processor is the device, they share it. The small
images stand for the short steps of an accelerator.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import numpy as np
import orbax.checkpoint

from resnet_jax import create_model
from resnet_jax.data.augment import normalize
from resnet_jax.parallel import AXIS_NAME, choose_devices, create_mapping, prepare_backend
from resnet_jax.training.checkpoint_writer import CheckpointWriter
from resnet_jax.training.checkpoints import steps_in
from resnet_jax.training.optimizer import sgd
from resnet_jax.training.schedules import step_decay
from resnet_jax.training.state import create_state
from resnet_jax.training.step import make_train_step

MODEL = {"name": "resnet50", "num_classes": 1000, "dtype": "float32"}


class Loop:
    """ResNet-50's training step and its state, on synthetic images."""

    def __init__(self, batch: int, size: int) -> None:
        mapping = create_mapping("auto", choose_devices(batch, None))
        model = create_model(**MODEL)
        schedule = step_decay(0.01, boundaries=())
        optimizer = sgd(schedule, momentum=0.9, weight_decay=1e-4)
        rng = np.random.RandomState(0)
        images, labels = (
            rng.randint(0, 256, (batch, size, size, 3), np.uint8),
            rng.randint(0, 1000, batch).astype(np.int32),
        )
        mean = np.full(3, 128, np.float32)
        state = create_state(model, optimizer, seed=0, image_shape=images.shape[1:], image_mean=mean)
        step = make_train_step(
            model.clone(axis_name=AXIS_NAME),
            optimizer,
            lambda _, x, mean: normalize(x, mean),
            schedule=schedule,
            seed=0,
            axis_name=AXIS_NAME,
        )
        self.batch = mapping.shard(
            {"image": images, "label": labels, "index": np.arange(batch), "mask": np.ones(batch, bool)}
        )
        self.train_step = mapping.map(step, donate=True)
        self.state = mapping.replicate(jax.device_get(state))

    def step(self) -> None:
        """Makes a step and waits for it."""
        self.state, _ = jax.block_until_ready(self.train_step(self.state, self.batch))

    def copy(self) -> None:
        """Copies every array of the state to host memory."""
        jax.tree.map(np.array, jax.device_get(self.state))


def seconds(action: Callable[[], None]) -> float:
    """Returns how long an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def measure(loop: Loop, workdir: str, *, repetitions: int, steps: int) -> dict[str, float]:
    """Returns the median seconds of a save, a copy, and a step with and without a save beside it."""
    writer = CheckpointWriter(workdir, keep=1, config={}, model=MODEL)
    taken: dict[str, list[float]] = {"save": [], "copy": [], "step": [], "step_during_save": []}
    loop.step(), loop.step()
    for number in range(1, repetitions + 2):
        copied = seconds(loop.copy)
        alone = [seconds(loop.step) for _ in range(steps)]
        saved = seconds(lambda number=number: writer.save(number, loop.state))
        during = []
        while number not in steps_in(workdir) or not during:
            during.append(seconds(loop.step))
        if number > 1:  # The first finds nothing to finish, and imports what it needs.
            taken["save"].append(saved)
            taken["copy"].append(copied)
            taken["step"] += alone
            taken["step_during_save"] += during
    writer.wait()
    writer.close()
    return {name: median(times) for name, times in taken.items()}


def main() -> None:
    """Prints the ratio and what it is made of, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="side of the images")
    parser.add_argument("--repetitions", type=int, default=7, help="saves, after one")
    parser.add_argument(
        "--steps", type=int, default=5, help="steps between two saves with nothing in the background"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    prepare_backend(arguments.batch, None, 0)
    loop = Loop(arguments.batch, arguments.size)
    with tempfile.TemporaryDirectory() as workdir:
        times = measure(loop, workdir, repetitions=arguments.repetitions, steps=arguments.steps)
    arrays = jax.tree.leaves(loop.state)
    report: dict[str, Any] = {
        "save_stall_ratio": times["save"] / (times["copy"] + times["step"]),
        "step_during_save_ratio": times["step_during_save"] / times["step"],
        "seconds": times,
        "arrays": len(arrays),
        "bytes": sum(array.nbytes for array in arrays),
        "cores": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
        "orbax": orbax.checkpoint.__version__,
    }
    if arguments.json:
        print(json.dumps(report))
        return
    shown = ", ".join(f"{name.replace('_', ' ')} {1e3 * value:.0f}" for name, value in times.items())
    print(f"{len(arrays)} arrays, {report['bytes'] / 1e6:.0f} MB; ms: {shown}")
    print(
        f"save_stall_ratio {report['save_stall_ratio']:.2f}, step_during_save_ratio "
        f"{report['step_during_save_ratio']:.2f}"
    )


if __name__ == "__main__":
    main()
