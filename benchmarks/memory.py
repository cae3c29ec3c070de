"""Peak memory of a training step of a deep net, with and without remat of its blocks.

    python benchmarks/memory.py
    python benchmarks/memory.py --depth 1202 --remat 7 14 28 --json
    python benchmarks/memory.py --depth 110 --remat 4 --steps 3

The figures are the compiler's, of a scanned step at batch 128 and 32×32 on one CPU device: arguments and
temporaries. The peer is the same step that keeps every activation. What it costs is timed with --steps, in
turns; that needs the memory.
"""

import argparse
import json
import time
from statistics import median
from typing import Any

import jax
from compile_time import BATCH, build

from resnet_jax.parallel import choose_devices, create_mapping, prepare_backend


def main() -> None:
    """Prints a line for every number of blocks, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=1202)
    parser.add_argument(
        "--remat", nargs="+", type=int, default=[14], help="blocks that are computed again together"
    )
    parser.add_argument("--steps", type=int, default=0, help="timed steps of each, after two")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    prepare_backend(BATCH, None, 1)
    mapping = create_mapping("auto", choose_devices(BATCH, None, 1))
    built = {
        remat: build(arguments.depth, mapping, scan=True, remat=remat) for remat in [0, *arguments.remat]
    }
    peak: dict[int, int] = {}
    for remat, (step, state, batch) in built.items():
        memory = step.lower(state, batch).compile().memory_analysis()
        peak[remat] = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    times: dict[int, list[float]] = {remat: [] for remat in built}
    for number in range(arguments.steps + 2 if arguments.steps else 0):
        for remat, (step, state, batch) in built.items():
            start = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, batch))
            built[remat] = step, state, batch
            times[remat] += [time.perf_counter() - start] if number >= 2 else []
    report: dict[str, Any] = {
        "peak_bytes": peak,
        f"memory_ratio_{arguments.depth}": min(peak.values()) / peak[0],
    }
    if arguments.steps:
        report |= {"step_seconds": {remat: median(taken) for remat, taken in times.items()}}
    if arguments.json:
        print(json.dumps(report))
        return
    for remat, size in peak.items():
        took = f", {report['step_seconds'][remat]:.2f} s a step" if arguments.steps else ""
        print(
            f"{arguments.depth} layers, remat {remat}: {size / 1e9:.2f} GB, {size / peak[0]:.3f} of keeping "
            f"all{took}"
        )


if __name__ == "__main__":
    main()
