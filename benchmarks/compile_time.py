"""How long a training step takes to trace, lower and compile, by depth, scanned and unrolled.

And what scanning costs at run time.

    python benchmarks/compile_time.py
    python benchmarks/compile_time.py --steps 7 --json

The step is that of `python train.py` at batch 128 and 32×32, one device per core. Times are medians of
--repetitions compilations, which the nets take in turns, after one of each that does not count; the peer of
the scanned step is the unrolled one, in turns too. The cache of compiled programs is off.
"""

import argparse
import json
import time
from functools import partial
from statistics import median
from typing import Any

import jax
import numpy as np

from resnet_jax import create_model
from resnet_jax.data.augment import normalize
from resnet_jax.models import ScannedStage, Stage
from resnet_jax.parallel import AXIS_NAME, Mapping, choose_devices, create_mapping, prepare_backend
from resnet_jax.training.optimizer import sgd
from resnet_jax.training.schedules import step_decay
from resnet_jax.training.state import TrainState, create_state
from resnet_jax.training.step import make_train_step

BATCH, SIZE = 128, 32
UNROLLED_UP_TO = 110
"""Deeper nets are not compiled unrolled: 24 minutes were not enough for 1202 layers."""


def build(depth: int, mapping: Mapping, *, scan: bool, remat: int = 0) -> tuple[Any, TrainState, Any]:
    """Returns a step, not compiled yet, its state and its batch."""
    model = create_model(f"cifar_resnet{depth}", stage=partial(ScannedStage, remat=remat) if scan else Stage)
    schedule = step_decay(0.1, boundaries=(), factor=0.1, warmup_steps=0, warmup_rate=0.1)
    optimizer = sgd(schedule, momentum=0.9, weight_decay=1e-4)
    rng = np.random.RandomState(0)
    images, labels = (
        rng.randint(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
        rng.randint(0, 10, BATCH).astype(np.int32),
    )
    state = create_state(
        model, optimizer, seed=0, image_shape=images.shape[1:], image_mean=np.full(3, 128, np.float32)
    )
    step = make_train_step(
        model.clone(axis_name=AXIS_NAME),
        optimizer,
        lambda _, x, mean: normalize(x, mean),
        schedule=schedule,
        seed=0,
        axis_name=AXIS_NAME,
    )
    batch = mapping.shard(
        {"image": images, "label": labels, "index": np.arange(BATCH), "mask": np.ones(BATCH, bool)}
    )
    return mapping.map(step, donate=True), mapping.replicate(jax.device_get(state)), batch


def compilation(depth: int, mapping: Mapping, *, scan: bool) -> dict[str, float]:
    """Returns the seconds of tracing and lowering, of compiling, and of all."""
    step, state, batch = build(depth, mapping, scan=scan)
    start = time.perf_counter()
    lowered = step.lower(state, batch)
    lowered_at = time.perf_counter()
    lowered.compile()
    end = time.perf_counter()
    return {"trace and lower": lowered_at - start, "compile": end - lowered_at, "all": end - start}


def step_seconds(depth: int, mapping: Mapping, steps: int) -> dict[bool, float]:
    """Returns the median time of a step, scanned (True) and unrolled, in turns, after two of each."""
    built = {scan: build(depth, mapping, scan=scan) for scan in (True, False)}
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(steps + 2):
        for scan, (step, state, batch) in built.items():
            start = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, batch))
            times[scan] += [time.perf_counter() - start] if number >= 2 else []
            built[scan] = step, state, batch
    return {scan: median(taken) for scan, taken in times.items()}


def main() -> None:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depths", nargs="+", type=int, default=[20, 56, 110, 1202])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="timed steps; 0 leaves run time out")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    prepare_backend(BATCH, None, 0)
    mapping = create_mapping("auto", choose_devices(BATCH, None))
    nets = [
        (depth, scan)
        for depth in arguments.depths
        for scan in (True, False)
        if scan or depth <= UNROLLED_UP_TO
    ]
    runs: dict[tuple[int, bool], list[dict[str, float]]] = {net: [] for net in nets}
    for number in range(arguments.repetitions + 1):
        for depth, scan in nets:
            taken = compilation(depth, mapping, scan=scan)
            runs[depth, scan] += [taken] if number else []
    table: dict[str, dict[str, float]] = {}
    for (depth, scan), times in runs.items():
        row = {part: median(taken[part] for taken in times) for part in times[0]}
        table[f"{depth} {'scanned' if scan else 'unrolled'}"] = row
        if not arguments.json:
            print(
                f"{depth} layers {'scanned ' if scan else 'unrolled'}",
                *(f"{part} {value:5.1f} s" for part, value in row.items()),
            )
    report: dict[str, Any] = {"seconds": table}
    first = table[f"{arguments.depths[0]} unrolled"]["all"]
    report |= {
        f"compile_ratio_{d}_to_{arguments.depths[0]}": table[f"{d} scanned"]["all"] / first
        for d in arguments.depths
    }
    for depth in (d for d in arguments.depths if 0 < d <= UNROLLED_UP_TO and arguments.steps):
        seconds = step_seconds(depth, mapping, arguments.steps)
        report[f"scan_step_ratio_resnet{depth}"] = seconds[True] / seconds[False]
        report["seconds"][f"{depth} step"] = {"scanned": seconds[True], "unrolled": seconds[False]}
    if arguments.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        if name != "seconds":
            print(f"{name} {value:.2f}")


if __name__ == "__main__":
    main()
