"""Detection's parts on CPU against torchvision's, in one run: suppression, RoIAlign and the whole inference.

    python benchmarks/detection.py
    python benchmarks/detection.py --cases nms_300 align_small --rounds 9 --json
    python benchmarks/detection.py --cores 1

Needs PyTorch and torchvision (`pip install -e '.[parity]' torchvision`). Each side has a process of its own,
a thread for each core that it may use, and the same inputs. They take turns of four calls, of which the first
does not count, since it finds the caches full of the other's; the median of each is printed, and our time
over torchvision's. The largest difference between their results is printed too. `scenes` is the net of
`faster_rcnn:scenes` with random weights on eight images, and the same net composed of torchvision's parts,
contiguous or channels-last, whichever is faster. The floor of suppression of up to 512 boxes is a sort and
all overlaps, which our form cannot do without.

On a machine that others use, read the ratio of processor time with `--cores 1`: threads that wait for each
other make times by the clock arbitrary. torchvision's suppression has no number of boxes to stop at.
"""

import argparse
import json
import multiprocessing
import os
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import jax
import numpy as np
import torch
import torchvision
from detection_peers import CASES, MAKERS, SIDES, Call, Pooling, seconds


def made_by(side: str, name: str) -> dict[str, Call]:
    """Returns what a side computes in a case, by part; nothing where it has no place in it."""
    make = MAKERS[type(CASES[name])].get(side)
    return make(CASES[name]) if make else {}


def serve(connection: Connection, side: str, cores: int) -> None:
    """Answers (case, part, times, keep): the seconds of each call, and with `keep` the result of another."""
    jax.config.update("jax_enable_compilation_cache", False)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(cores)
    made: dict[str, dict[str, Call]] = {}
    while (asked := connection.recv()) is not None:
        name, part, times, keep = asked
        if name not in made:
            made = {name: made_by(side, name)}
        call = made[name].get(part)
        if call is None:
            connection.send(([], None))
        else:
            connection.send((seconds(call, times), call() if keep else True))


class Contestant:
    """A side in a process of its own."""

    def __init__(self, side: str, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, side, cores))
        self._process.start()
        theirs.close()

    def call(
        self, name: str, part: str, times: int, *, keep: bool = False
    ) -> tuple[list[tuple[float, float]], Any]:
        """Returns the seconds of calls, and the result with `keep`; None where the side has no such part."""
        self._connection.send((name, part, times, keep))
        return self._connection.recv()

    def close(self) -> None:
        """Ends the process."""
        self._connection.send(None)
        self._process.join()


def measure(sides: dict[str, Contestant], name: str, part: str, rounds: int) -> dict[str, Any]:
    """Returns medians by side, ours over torchvision's, and how far the results differ."""
    results = {
        side: contestant.call(name, part, 1, keep=side != "floor")[1] for side, contestant in sides.items()
    }
    pairs = zip(results["ours"], results["torchvision"], strict=True)
    difference = max(
        float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max()) for one, other in pairs
    )
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides if results[side] is not None}
    for _ in range(rounds):
        for side in taken:
            taken[side] += sides[side].call(name, part, 4)[0][1:]
    clock = {side: 1e3 * median(pair[0] for pair in several) for side, several in taken.items()}
    used = {side: 1e3 * median(pair[1] for pair in several) for side, several in taken.items()}
    return {
        "ms": clock,
        "processor_ms": used,
        "ratio": clock["ours"] / clock["torchvision"],
        "processor_ratio": used["ours"] / used["torchvision"],
        "difference": difference,
    }


def main() -> None:
    """Prints a line for each case and part, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=2, help="cores that each side may use (default: 2)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "cores": min(arguments.cores, len(os.sched_getaffinity(0))),
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    sides = {side: Contestant(side, report["cores"]) for side in SIDES}
    for name in arguments.cases:
        for part in ("forward", "gradient") if isinstance(CASES[name], Pooling) else ("forward",):
            found = measure(sides, name, part, arguments.rounds)
            report[f"{name}_{part}"] = found
            if not arguments.json:
                shown = ", ".join(f"{side} {value:.2f}" for side, value in found["ms"].items())
                print(
                    f"{name} {part}, ms: {shown}; ours / torchvision {found['ratio']:.2f}, "
                    f"of processor time {found['processor_ratio']:.2f}; "
                    f"largest difference {found['difference']:.1e}",
                    flush=True,
                )
    for contestant in sides.values():
        contestant.close()
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
