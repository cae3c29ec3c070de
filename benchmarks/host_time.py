"""Host time of a step on two processes.

Our mapping against a bare `jit(shard_map)` on the same state, in the same run.

    python benchmarks/host_time.py
    python benchmarks/host_time.py --rounds 21 --steps 50 --json

Two processes of two CPU devices each join over Gloo on this machine. The state has the arrays of ResNet-50's,
parameters, momentum and statistics, of a narrow net: what the host does grows with their number, not with
their size. The step adds one to each and has no collective, so that next to nothing is computed. Timed is all
that a training loop does for a step: placing the batch and calling the step, with at most one under way. Both
take turns, round by round, on both processes; the first one's medians are printed.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resnet_jax import create_model
from resnet_jax.parallel import AXIS_NAME, create_mapping
from resnet_jax.training.optimizer import sgd
from resnet_jax.training.schedules import step_decay
from resnet_jax.training.state import create_state

PROCESSES, DEVICES, WIDTH = 2, 2, 4

Step = Callable[[Any, Any], Any]


def add_one(state: Any, batch: Any) -> Any:
    """Returns a state that is not the old one, and what stands for metrics."""
    return jax.tree.map(lambda x: x + 1, state), {"loss": batch["image"].astype(np.float32).mean()}


def host_state() -> Any:
    """Returns the arrays of ResNet-50's state, narrow, in host memory."""
    model = create_model("resnet50", width=WIDTH, num_classes=10)
    optimizer = sgd(step_decay(0.1, boundaries=()), momentum=0.9, weight_decay=1e-4)
    create = partial(
        create_state, model, optimizer, seed=0, image_shape=(32, 32, 3), image_mean=np.zeros(3, np.float32)
    )
    return jax.tree.map(lambda array: np.zeros(array.shape, array.dtype), jax.eval_shape(create))


def ours(state: Any) -> tuple[Step, Any]:
    """Returns a step by the mapping that training takes, and its state."""
    mapping = create_mapping("auto", jax.devices())
    step = mapping.map(add_one, donate=True)
    return lambda state, batch: step(state, mapping.shard(batch)), mapping.replicate(state)


def bare(state: Any) -> tuple[Step, Any]:
    """Returns the same by JAX alone."""
    mesh = Mesh(np.array(jax.devices()), (AXIS_NAME,))
    same, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS_NAME))
    specs = (PartitionSpec(), PartitionSpec(AXIS_NAME))
    mapped = jax.shard_map(add_one, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
    step = jax.jit(mapped, donate_argnums=0)
    place = partial(jax.tree.map, lambda x: jax.make_array_from_process_local_data(split, x))
    placed = jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, same, lambda index: x[index]), state
    )
    return lambda state, batch: step(state, place(batch)), placed


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Returns the median wall and processor time of a step in milliseconds, and the ratios."""
    state, size = host_state(), 8 * DEVICES
    batch = {
        "image": np.zeros((size, 32, 32, 3), np.uint8),
        "label": np.zeros(size, np.int32),
        "index": np.arange(size, dtype=np.int32),
        "mask": np.ones(size, bool),
    }
    peers = {"ours": ours(state), "bare": bare(state)}
    wall: dict[str, list[float]] = {name: [] for name in peers}
    cpu: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(rounds + 2):
        for name, (step, placed) in peers.items():
            began, spent = time.perf_counter(), time.thread_time()
            before = None
            for _ in range(steps):
                placed, metrics = step(placed, batch)
                jax.block_until_ready(before)
                before = metrics
            jax.block_until_ready(placed)
            if number >= 2:  # The first two rounds compile.
                wall[name].append(1e3 * (time.perf_counter() - began) / steps)
                cpu[name].append(1e3 * (time.thread_time() - spent) / steps)
            peers[name] = step, placed
    return {
        "host_time_ratio": median(wall["ours"]) / median(wall["bare"]),
        "host_cpu_ratio": median(cpu["ours"]) / median(cpu["bare"]),
        "wall_ms": {name: median(times) for name, times in wall.items()},
        "cpu_ms": {name: median(times) for name, times in cpu.items()},
        "arrays": len(jax.tree.leaves(state)),
    }


def join(address: str, process: int) -> None:
    """Makes this process one of two, with devices of its own."""
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, PROCESSES, process)


def free_address() -> str:
    """Returns an address on this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def main() -> None:
    """Starts the second process, and prints what the first measures: a line a peer, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11, help="of each, after two")
    parser.add_argument("--steps", type=int, default=50, help="a round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--join", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    address = arguments.join or free_address()
    second = (
        None
        if arguments.join
        else subprocess.Popen([sys.executable, *sys.argv, "--join", address], stdout=subprocess.DEVNULL)
    )
    try:
        join(address, int(bool(arguments.join)))
        report = measure(arguments.rounds, arguments.steps)
        jax.distributed.shutdown()
    except BaseException:
        if second:
            second.kill()
        raise
    if second:
        second.wait()
    report |= {
        "processes": PROCESSES,
        "devices": DEVICES,
        "cores": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
    }
    if arguments.json:
        print(json.dumps(report))
        return
    for name in ("ours", "bare"):
        print(
            f"{name}: {report['wall_ms'][name]:.2f} ms a step, {report['cpu_ms'][name]:.2f} of the processor"
        )
    print(f"host_time_ratio {report['host_time_ratio']:.3f}, host_cpu_ratio {report['host_cpu_ratio']:.3f}")


if __name__ == "__main__":
    main()
