"""Images per second from disk to batches in host memory, against tf.data, Pillow and the decoder.

    pip install tensorflow-cpu
    python benchmarks/input.py
    python benchmarks/input.py --json

All read the same 500×375 JPEGs, written here from the photographs that scikit-learn ships (quality 95, chroma
halved), and see them as 224×224 crops in batches of 64. Each pipeline runs in a process of its own that may
use one core, or two where it says so; their turns alternate, and the figures are medians over the turns.
Files are in the page cache after the first turn. Ratios: tf.data's shape is that of Flax's ImageNet example
(decode and crop, bicubic, normalized); Pillow scales the whole image and crops it in worker processes; the
decoder is simplejpeg on whole images, with nothing read, scaled or assembled. Beside them: the same images
prepared as ArrayRecord, encoded and as raw pixels. Other programs on the machine disturb what is measured by
the clock, and favor pipelines of many threads: the load is printed, and the figures of one core are given per
second of the processor's time too.
"""

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import input_peers as peers
import numpy as np
import simplejpeg
import sklearn.datasets

from resnet_jax.data.prepare import prepare

EXAMPLES, WIDTH, HEIGHT, QUALITY = 512, 500, 375, 95
DRAINED, MEASURED = (
    7,
    10,
)  # Batches of a turn: those that were read ahead meanwhile, and those that are timed.
PAUSE, IDLE = (
    0.1,
    0.02,
)  # Seconds that a pipeline is watched for after its turn, and of the processor's time that are none.


def write_photographs(folder: Path) -> None:
    """Writes parts of two photographs, scaled to 500×375, as an image folder of two classes."""
    photographs = sklearn.datasets.load_sample_images().images
    random = np.random.RandomState(0)
    for number in range(EXAMPLES):
        photograph = photographs[number % 2]
        width = random.randint(WIDTH, 570)
        height = round(width * HEIGHT / WIDTH)
        left, top = (
            random.randint(photograph.shape[1] - width + 1),
            random.randint(photograph.shape[0] - height + 1),
        )
        part = cv2.resize(
            photograph[top : top + height, left : left + width], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA
        )
        path = folder / "train" / f"photograph{number % 2}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            simplejpeg.encode_jpeg(np.ascontiguousarray(part), quality=QUALITY, colorsubsampling="420")
        )


def serve(connection: Connection, pipeline: str, source: str, cores: list[int]) -> None:
    """Runs a pipeline on these cores alone, and times it whenever it is asked to."""
    os.sched_setaffinity(0, cores)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    batches = getattr(peers, pipeline)(source, len(cores))
    next(batches)
    connection.send("ready")
    while connection.recv():
        for _ in range(DRAINED):
            next(batches)
        began, worked = time.perf_counter(), processor_seconds()
        for _ in range(MEASURED):
            next(batches)
        images = MEASURED * peers.BATCH
        rates = images / (time.perf_counter() - began), images / (processor_seconds() - worked)
        wait_until_idle()  # What it reads ahead would take the core from whoever is next.
        connection.send(rates)


def wait_until_idle() -> None:
    """Returns when this process and its workers have stopped working."""
    before = -math.inf
    while (worked := processor_seconds()) - before > IDLE:
        before = worked
        time.sleep(PAUSE)


def processor_seconds() -> float:
    """Returns what this process and its workers have used."""
    workers = [
        Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        for worker in multiprocessing.active_children()
    ]
    return time.process_time() + sum(int(fields[11]) + int(fields[12]) for fields in workers) / os.sysconf(
        "SC_CLK_TCK"
    )


class Contender:
    """A pipeline in a process of its own."""

    def __init__(self, pipeline: str, source: Path, cores: list[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, pipeline, str(source), cores))
        self._process.start()
        theirs.close()
        self._connection.recv()
        self.rates: list[tuple[float, float]] = []

    def take_turn(self) -> None:
        """Measures once."""
        self._connection.send(True)
        self.rates.append(self._connection.recv())

    def close(self) -> None:
        """Ends the process."""
        self._connection.send(False)
        self._process.join()


def measure(turns: int) -> dict[str, tuple[float, float] | None]:
    """Returns the median images per second of every pipeline, by wall clock and by CPU time."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    one = cores[:1]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photographs(root / "folder")
        prepare(str(root / "folder"), str(root / "encoded"))
        prepare(str(root / "folder"), str(root / "raw"), raw_share=1.0)
        contenders = {
            "ours": Contender("ours", root / "folder", one),
            "ours_2core": Contender("ours", root / "folder", cores) if len(cores) == 2 else None,
            "tf_data": Contender("tf_data", root / "folder", one)
            if importlib.util.find_spec("tensorflow")
            else None,
            "pillow": Contender("pillow", root / "folder", one),
            "decoder": Contender("decoder", root / "folder", one),
            "prepared": Contender("ours", root / "encoded", one),
            "raw": Contender("ours", root / "raw", one),
            "raw_2core": Contender("ours", root / "raw", cores) if len(cores) == 2 else None,
        }
        for _ in range(turns + 1):  # The first warms up.
            for contender in contenders.values():
                if contender:
                    contender.take_turn()
        for contender in contenders.values():
            if contender:
                contender.close()
    medians = {}
    for name, contender in contenders.items():
        clock, processor = zip(*contender.rates[1:], strict=True) if contender else ((), ())
        medians[name] = (statistics.median(clock), statistics.median(processor)) if contender else None
    return medians


def report(turns: int) -> dict[str, Any]:
    """Returns the figures and the ratios, the versions and the machine."""
    load = [round(os.getloadavg()[0], 2)]
    rates = measure(turns)
    load.append(round(os.getloadavg()[0], 2))

    def ratios(kind: int) -> dict[str, float | None]:
        peers = {
            "tf_data": "ratio_to_tf_data_1core",
            "pillow": "ratio_to_pillow_1core",
            "decoder": "ratio_to_decoder_1core",
        }
        found = {key: (rates[name], rates["ours"]) for name, key in peers.items()}
        return {
            key: round(ours[kind] / peer[kind], 3) if peer and ours else None
            for key, (peer, ours) in found.items()
        }

    ours, both = rates["ours"], rates["ours_2core"]
    assert ours
    return {
        "images_per_second_1core": round(ours[0], 1),
        **ratios(0),
        "scaling_2core": round(both[0] / ours[0], 3) if both else None,
        "per_processor_second": {"images_1core": round(ours[1], 1), **ratios(1)},
        "images_per_second": {name: round(rate[0], 1) if rate else None for name, rate in rates.items()},
        "images_per_processor_second": {
            name: round(rate[1], 1) if rate else None for name, rate in rates.items()
        },
        "turns": turns,
        "load_before_and_after": load,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {
            name: version(name)
            for name in ("simplejpeg", "opencv-python-headless", "grain", "pillow", "numpy")
        }
        | {
            name: version(name)
            for name in ("turbojpeg", "tensorflow-cpu")
            if importlib.util.find_spec(name.removesuffix("-cpu"))
        },
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--turns", type=int, default=15, help="of each pipeline (default: 15)")
    arguments = parser.parse_args()
    found = report(arguments.turns)
    if found["ratio_to_tf_data_1core"] is None:
        print("TensorFlow is not installed, and not compared: pip install tensorflow-cpu", file=sys.stderr)
    if arguments.json:
        print(json.dumps(found))
        return
    for name, rate in found["images_per_second"].items():
        processor = found["images_per_processor_second"][name]
        print(
            f"{name:12}"
            + (
                f"{rate:8,.0f} images/s {processor:8,.0f} per second of the processor"
                if rate
                else " not compared"
            )
        )
    print("\n".join(f"{name}: {value}" for name, value in found.items() if not name.startswith("images_per")))


if __name__ == "__main__":
    main()
