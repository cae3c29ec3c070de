"""Detection's parts on CPU against torchvision's, in one run: suppression, RoIAlign and the whole inference.

    python benchmarks/detection.py
    python benchmarks/detection.py --cases nms_300 align_small --rounds 9 --json

Needs torchvision of the same version as PyTorch (`pip install -e '.[parity]' torchvision`). Each side has a
process of its own, two threads at most and the same numbers. They take turns of four calls, of which the first
does not count, since it finds the caches full of the other's; the median of each is printed, and our time over
torchvision's. Two calls of each come first, and compare the results: the largest difference is printed too.
For RoIAlign a third side is the floor of our form: the two dense matrix products alone, of the same shapes.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchvision

from resnet_jax.detection.nms import nms
from resnet_jax.detection.roi import roi_align

THREADS = 2

Call = Callable[[], Sequence[np.ndarray]]


class Suppression(NamedTuple):
    """A case of non-maximum suppression.

    Attributes:
        boxes: Boxes that are given.
        count: Boxes that are kept at most.
        threshold: Overlap (IoU) above which the less likely box is dropped.
    """

    boxes: int
    count: int
    threshold: float


class Pooling(NamedTuple):
    """A case of RoIAlign.

    Attributes:
        map: Height, width and channels of the map.
        regions: Regions that are pooled.
        bins: Rows and columns of a pooled region.
        stride: Pixels of the image for a pixel of the map.
    """

    map: tuple[int, int, int]
    regions: int
    bins: int
    stride: int


CASES: dict[str, Suppression | Pooling] = {
    "nms_300": Suppression(300, 300, 0.3),
    "nms_2000": Suppression(2000, 300, 0.7),
    "nms_6000": Suppression(6000, 300, 0.7),
    "nms_12000": Suppression(12000, 2000, 0.7),
    "align_small": Pooling((16, 16, 64), 256, 6, 8),
    "align_large": Pooling((38, 63, 1024), 128, 14, 16),
}


def proposals(count: int, height: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes crowded around twenty objects, as anchors moved by a network are, and their scores."""
    random = np.random.RandomState(0)
    center = random.uniform(0.1, 0.9, (20, 2)) * [width, height]
    half = random.uniform(0.05, 0.2, (20, 2)) * min(height, width)
    which = random.randint(0, 20, count)
    spread = half[which] * random.choice([0.15, 1.0], (count, 1))
    at = center[which] + random.normal(size=(count, 2)) * spread
    sides = half[which] * np.exp(0.3 * random.normal(size=(count, 2)))
    boxes = np.concatenate([at - sides, at + sides], 1).clip(0, [width, height] * 2)
    return boxes.astype(np.float32), random.normal(size=count).astype(np.float32)


def our_suppression(case: Suppression) -> dict[str, Call]:
    """Returns our suppression."""
    boxes, scores = map(jnp.asarray, proposals(case.boxes, 600, 1000))
    valid = jnp.ones(case.boxes, bool)
    suppress = jax.jit(partial(nms, threshold=case.threshold, count=case.count))
    return {"forward": lambda: (np.asarray(jax.block_until_ready(suppress(boxes, scores, valid))),)}


def their_suppression(case: Suppression) -> dict[str, Call]:
    """Returns torchvision's suppression, cut to the number of boxes."""
    boxes, scores = map(torch.tensor, proposals(case.boxes, 600, 1000))

    def suppress() -> Sequence[np.ndarray]:
        keep = torch.zeros(case.boxes, dtype=torch.bool)
        keep[torchvision.ops.nms(boxes, scores, case.threshold)[: case.count]] = True
        return (keep.numpy(),)

    return {"forward": suppress}


def inputs(case: Pooling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a map, regions and a gradient of the pooled regions, channels last."""
    random = np.random.RandomState(1)
    height, width, channels = case.map
    boxes, _ = proposals(case.regions, height * case.stride, width * case.stride)
    upstream = random.normal(size=(case.regions, case.bins, case.bins, channels))
    return random.normal(size=case.map).astype(np.float32), boxes, upstream.astype(np.float32)


def our_pooling(case: Pooling) -> dict[str, Call]:
    """Returns our RoIAlign, forward and with its gradient to the map."""
    x, boxes, upstream = map(jnp.asarray, inputs(case))
    valid = jnp.ones(case.regions, bool)
    pool = partial(roi_align, stride=case.stride, bins=case.bins, samples=2)
    forward = jax.jit(lambda x, boxes: pool(x, boxes, valid))

    def both(x: jax.Array, boxes: jax.Array, upstream: jax.Array) -> tuple[jax.Array, jax.Array]:
        pooled, pull = jax.vjp(lambda x: pool(x, boxes, valid), x)
        return pooled, pull(upstream)[0]

    gradient = jax.jit(both)
    return {
        "forward": lambda: (np.asarray(jax.block_until_ready(forward(x, boxes))),),
        "gradient": lambda: tuple(map(np.asarray, jax.block_until_ready(gradient(x, boxes, upstream)))),
    }


def their_pooling(case: Pooling) -> dict[str, Call]:
    """Returns torchvision's RoIAlign, channels first as it computes, forward and with its gradient."""
    x, boxes, upstream = map(torch.tensor, inputs(case))
    x = x.permute(2, 0, 1)[None].contiguous()
    upstream = upstream.permute(0, 3, 1, 2).contiguous()
    pool = partial(
        torchvision.ops.roi_align,
        boxes=[boxes],
        output_size=case.bins,
        spatial_scale=1 / case.stride,
        sampling_ratio=2,
        aligned=True,
    )

    def forward() -> Sequence[np.ndarray]:
        with torch.inference_mode():
            return (pool(x).permute(0, 2, 3, 1).numpy(),)

    def gradient() -> Sequence[np.ndarray]:
        given = x.detach().requires_grad_()
        pooled = pool(given)
        pooled.backward(upstream)
        return pooled.detach().permute(0, 2, 3, 1).numpy(), given.grad[0].permute(1, 2, 0).numpy()

    return {"forward": forward, "gradient": gradient}


def floor_of_pooling(case: Pooling) -> dict[str, Call]:
    """Returns the matrix products of RoIAlign's shapes alone, forward and with those of the gradient."""
    height, width, channels = case.map
    rows = case.regions * case.bins
    first = jnp.ones((rows, width)), jnp.ones((width, height * channels))
    second = (
        jnp.ones((case.regions, case.bins, height)),
        jnp.ones((case.regions, height, case.bins * channels)),
    )

    def forward(first: Any, second: Any) -> tuple[jax.Array, jax.Array]:
        return first[0] @ first[1], second[0] @ second[1]

    def gradient(first: Any, second: Any, upstream: Any) -> Any:
        return (
            *forward(first, second),
            jnp.swapaxes(second[0], 1, 2) @ upstream[1],
            first[0].T @ upstream[0],
        )

    upstream = jax.block_until_ready(forward(first, second))
    plain, full = jax.jit(forward), jax.jit(gradient)
    return {
        "forward": lambda: jax.block_until_ready(plain(first, second)),
        "gradient": lambda: jax.block_until_ready(full(first, second, upstream)),
    }


SIDES = ("ours", "torchvision", "floor")


def calls_of(side: str, name: str) -> dict[str, Call]:
    """Returns what a side computes in a case, by name; nothing where it has no part in it."""
    case = CASES[name]
    if isinstance(case, Suppression):
        made = {"ours": our_suppression, "torchvision": their_suppression}
        return made[side](case) if side in made else {}
    return {"ours": our_pooling, "torchvision": their_pooling, "floor": floor_of_pooling}[side](case)


def serve(connection: Connection, side: str) -> None:
    """Answers (case, part, times): the seconds of each call and the last result."""
    jax.config.update("jax_enable_compilation_cache", False)
    torch.set_num_threads(THREADS)
    made: dict[str, dict[str, Call]] = {}
    while (asked := connection.recv()) is not None:
        name, part, times = asked
        if name not in made:
            made = {name: calls_of(side, name)}
        taken, result = [], None
        for _ in range(times if part in made[name] else 0):
            start = time.perf_counter()
            result = made[name][part]()
            taken.append(time.perf_counter() - start)
        connection.send((taken, result))


class Contestant:
    """A side in a process of its own."""

    def __init__(self, side: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, side))
        self._process.start()
        theirs.close()

    def call(self, name: str, part: str, times: int) -> tuple[list[float], Any]:
        """Returns the seconds of calls, and the result of the last."""
        self._connection.send((name, part, times))
        return self._connection.recv()

    def close(self) -> None:
        """Ends the process."""
        self._connection.send(None)
        self._process.join()


def measure(sides: dict[str, Contestant], name: str, part: str, rounds: int) -> dict[str, Any]:
    """Returns median milliseconds by side, our time over torchvision's, and how far the results differ."""
    results = {side: contestant.call(name, part, 2)[1] for side, contestant in sides.items()}
    pairs = zip(results["ours"], results["torchvision"], strict=True)
    difference = max(
        float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max()) for one, other in pairs
    )
    taken: dict[str, list[float]] = {side: [] for side in sides if results[side] is not None}
    for _ in range(rounds):
        for side in taken:
            taken[side] += sides[side].call(name, part, 4)[0][1:]
    times = {side: 1e3 * median(several) for side, several in taken.items()}
    return {"ms": times, "ratio": times["ours"] / times["torchvision"], "difference": difference}


def main() -> None:
    """Prints a line for each case and part, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    sides = {side: Contestant(side) for side in SIDES}
    for name in arguments.cases:
        for part in ("forward",) if isinstance(CASES[name], Suppression) else ("forward", "gradient"):
            found = measure(sides, name, part, arguments.rounds)
            report[f"{name}_{part}"] = found
            if not arguments.json:
                shown = ", ".join(f"{side} {value:.2f}" for side, value in found["ms"].items())
                print(
                    f"{name} {part}, ms: {shown}; ours / torchvision {found['ratio']:.2f}; "
                    f"largest difference {found['difference']:.1e}",
                    flush=True,
                )
    for contestant in sides.values():
        contestant.close()
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
