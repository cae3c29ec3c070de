"""Images per second of ten-crop and multi-scale evaluation from JPEGs, against the forward pass alone.

    python benchmarks/evaluate.py
    python benchmarks/evaluate.py --model resnet50 --images 24 --json

The images are 500×375 JPEGs, every fourth one upright, cut out of the photographs that scikit-learn ships.
Evaluation decodes them, scales and crops them, gathers views of one shape, and counts. The forward pass, its
peer, is the net alone on as many devices, on normalized views of the same shapes that are on the devices
already, in full batches of the same size; its images per second are those of a set in which every shape is as
frequent. So what evaluation fills up in its last batches counts against it. Their turns alternate, after one
that compiles; a ratio is the median over turns. Other programs on the machine disturb what is measured by the
clock: the load is printed, and the same ratios by the processor's time.
"""

import argparse
import collections
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import simplejpeg
import sklearn.datasets
from jax import lax

from resnet_jax.data.datasets import open_source
from resnet_jax.data.encoded import DecodeOptions
from resnet_jax.evaluation.counts import Counts
from resnet_jax.evaluation.protocols import Protocol, SeenExamples, look_of
from resnet_jax.evaluation.scoring import Scorer, examples_at_once
from resnet_jax.models import create_model
from resnet_jax.parallel import AXIS_NAME, create_mapping, prepare_backend

SIDE, SCALE = 224, 256
PROTOCOLS = {"ten_crop": Protocol("ten-crop"), "multi_scale": Protocol("multi-scale")}
MEAN = np.array([123.675, 116.28, 103.53], np.float32)


def write_photographs(folder: Path, count: int) -> None:
    """Writes parts of two photographs as an image folder of two classes."""
    photographs = sklearn.datasets.load_sample_images().images
    random = np.random.RandomState(0)
    for number in range(count):
        left, top = random.randint(640 - 500 + 1), random.randint(427 - 375 + 1)
        part = photographs[number % 2][top : top + 375, left : left + 500]
        part = cv2.rotate(part, cv2.ROTATE_90_CLOCKWISE) if number % 4 == 3 else np.ascontiguousarray(part)
        path = folder / "val" / f"photograph{number % 2}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(simplejpeg.encode_jpeg(part, quality=95, colorsubsampling="420"))


class Forward:
    """The net alone on the views that a protocol shows, ready on the devices.

    Args:
        net: That is evaluated.
        examples: As the protocol sees them.
        count: Number of examples.
        pixels: Number of pixels in a batch.
        sides: 2 where views are seen in the mirror too.
    """

    def __init__(self, net: Scorer, examples: SeenExamples, count: int, *, pixels: int, sides: int) -> None:
        shapes = collections.Counter(
            stack.shape[:3] for number in range(count) for stack in examples[number][2].values()
        )
        self._program = net.mapping.map(
            lambda variables, views: lax.psum(
                net.model.apply(variables, views.reshape(-1, *views.shape[2:])).sum(), AXIS_NAME
            ),
            donate=False,
        )
        self._variables = net.mapping.replicate(net.variables)
        self._parts = []
        for (views, height, width), frequency in shapes.items():
            devices = len(net.mapping.devices)
            size = examples_at_once((views, height, width), pixels, sides=sides, most=count, devices=devices)
            ready = (
                np.random.RandomState(0)
                .uniform(-128, 128, (size, views * sides, height, width, 3))
                .astype(np.float32)
            )
            self._parts.append((net.mapping.shard(ready), frequency / size))

    def seconds(self) -> tuple[float, float]:
        """Returns the seconds that all examples take in full batches, by the clock and of the processor."""
        clock = processor = 0.0
        for ready, batches in self._parts:
            repeats = max(1, round(batches))
            began, worked = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                jax.block_until_ready(self._program(self._variables, ready))
            clock += (time.perf_counter() - began) * batches / repeats
            processor += (time.process_time() - worked) * batches / repeats
        return clock, processor


def evaluation_seconds(
    net: Scorer, source: Any, protocol: Protocol, *, batch_size: int, workers: int
) -> tuple[float, float]:
    """Returns the seconds of an evaluation, by the clock and of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    counts = Counts(len(source.class_names))
    for scores in net.scores(source, protocol, batch_size=batch_size, workers=workers):
        counts.add(scores)
    assert counts.results()["examples"] == len(source)
    return time.perf_counter() - began, time.process_time() - worked


def measure(model_name: str, *, images: int, batch_size: int, turns: int) -> dict[str, Any]:
    """Returns ratios and images per second of both protocols."""
    prepare_backend(batch_size, None)
    cores = len(os.sched_getaffinity(0))
    model = create_model(model_name, num_classes=2)
    variables = jax.device_get(
        model.lazy_init(jax.random.key(0), jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32))
    )
    net = Scorer(model, variables, MEAN, create_mapping("auto", jax.devices()))
    decoding = DecodeOptions("center", size=SIDE, scales=(SCALE, SCALE), areas=(1, 1), test_scale=SCALE)
    found: dict[str, Any] = {"images_per_second": {}, "per_processor_second": {}}
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), images)
        source = open_source(folder, "val", decoding=decoding)
        for name, protocol in PROTOCOLS.items():
            examples = SeenExamples(source, look_of(protocol, source))
            sides = 2 if protocol.both else 1
            forward = Forward(net, examples, images, pixels=batch_size * SIDE * SIDE, sides=sides)
            pairs = []
            for turn in range(turns + 1):
                ours = evaluation_seconds(net, source, protocol, batch_size=batch_size, workers=cores)
                theirs = forward.seconds()
                pairs += [(ours, theirs)] if turn else []  # The first compiles.
            clock = [theirs[0] / ours[0] for ours, theirs in pairs]
            processor = [theirs[1] / ours[1] for ours, theirs in pairs]
            found[f"{name}_ratio"] = round(statistics.median(clock), 3)
            found["per_processor_second"][f"{name}_ratio"] = round(statistics.median(processor), 3)
            found["images_per_second"][name] = round(
                images / statistics.median(ours[0] for ours, _ in pairs), 2
            )
            found["images_per_second"][f"{name}_forward"] = round(
                images / statistics.median(theirs[0] for _, theirs in pairs), 2
            )
    return found


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", default="resnet18", help="of the ImageNet family (default: resnet18)")
    parser.add_argument("--images", type=int, default=48, help="(default: 48)")
    parser.add_argument(
        "--batch-size", type=int, default=16, help="as of `resnet-jax evaluate` (default: 16)"
    )
    parser.add_argument("--turns", type=int, default=3, help="of each, beside the first (default: 3)")
    arguments = parser.parse_args()
    load = [round(os.getloadavg()[0], 2)]
    found = measure(
        arguments.model, images=arguments.images, batch_size=arguments.batch_size, turns=arguments.turns
    )
    found |= {
        "model": arguments.model,
        "images": arguments.images,
        "batch_size": arguments.batch_size,
        "turns": arguments.turns,
        "devices": len(jax.devices()),
        "load_before_and_after": [*load, round(os.getloadavg()[0], 2)],
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {
            name: version(name) for name in ("jax", "flax", "numpy", "simplejpeg", "opencv-python-headless")
        },
    }
    if arguments.json:
        print(json.dumps(found))
        return
    print("\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
