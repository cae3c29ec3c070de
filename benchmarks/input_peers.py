"""The pipelines that `input.py` compares.

Each takes a folder of JPEGs and a number of cores, and yields batches without end.
"""

import collections
import itertools
import multiprocessing
import random
from collections.abc import Iterator
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

BATCH, SIZE, SCALES = 64, 224, (256, 480)
SLOTS = 6  # Batches of the worker processes' shared memory.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

_shared: Any = None


def ours(source: str, cores: int) -> Iterator[Any]:
    """Yields uint8 batches of this package: scale and crop of §3.4, as a function of (seed, step)."""
    from resnet_jax.data.batches import TrainBatches, read_ahead
    from resnet_jax.data.datasets import open_source
    from resnet_jax.data.encoded import DecodeOptions

    decoding = DecodeOptions("scale", size=SIZE, scales=SCALES, areas=(0.08, 1.0), test_scale=SCALES[0])
    batches = TrainBatches(open_source(source, "train", decoding=decoding), BATCH, 0, slice(0, BATCH))
    return read_ahead(batches, 0, 10**9, workers=cores, buffer=4)


def tf_data(source: str, cores: int) -> Iterator[Any]:
    """Yields bfloat16 batches of tf.data, in the shape of Flax's ImageNet example.

    Less work in decoding, since only a box is.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)

    def load(path: Any) -> Any:
        encoded = tf.io.read_file(path)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(encoded),
            bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
        )
        window = tf.concat([begin[:2], extent[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.resize([image], (SIZE, SIZE), method=tf.image.ResizeMethod.BICUBIC)[0]
        image = (tf.image.random_flip_left_right(image) - tf.constant(MEAN)) / tf.constant(DEVIATION)
        return tf.cast(image, tf.bfloat16)

    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    files = tf.data.Dataset.from_tensor_slices(_files(source)).shuffle(4096, seed=0).repeat()
    batches = (
        files.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True).prefetch(4)
    )
    return batches.with_options(options).as_numpy_iterator()


def pillow(source: str, cores: int) -> Iterator[Any]:
    """Yields uint8 batches of worker processes, one per core, that scale images with Pillow and crop."""
    global _shared
    _shared = RawArray("B", SLOTS * BATCH * SIZE * SIZE * 3)
    files = _files(source)
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        under_way: collections.deque[tuple[int, Any]] = collections.deque()
        for step in itertools.count():
            chosen = [files[(step * BATCH + place) % len(files)] for place in range(BATCH)]
            under_way.append((step % SLOTS, pool.apply_async(_pillow_batch, (step % SLOTS, chosen))))
            if len(under_way) > 2 * cores:
                slot, job = under_way.popleft()
                job.get()
                yield _slot(slot)


def decoder(source: str, cores: int) -> Iterator[Any]:
    """Yields after every 64 JPEGs that simplejpeg decoded whole.

    From memory, into memory that is used again.
    """
    assert cores == 1
    encoded = [Path(file).read_bytes() for file in _files(source)]
    height, width = simplejpeg.decode_jpeg_header(encoded[0])[:2]
    buffer = np.empty(height * width * 3, np.uint8)
    for start in itertools.count(0, BATCH):
        for place in range(start, start + BATCH):
            simplejpeg.decode_jpeg(encoded[place % len(encoded)], buffer=buffer)
        yield None


def _files(source: str) -> list[str]:
    files = sorted(map(str, Path(source).glob("train/*/*.jpg")))
    random.Random(0).shuffle(files)
    return files


def _slot(slot: int) -> np.ndarray:
    return np.frombuffer(_shared, np.uint8).reshape(SLOTS, BATCH, SIZE, SIZE, 3)[slot]


def _pillow_batch(slot: int, files: list[str]) -> None:
    import PIL.Image

    batch = _slot(slot)
    for place, file in enumerate(files):
        image = PIL.Image.open(file).convert("RGB")
        scale = random.randint(*SCALES) / min(image.size)
        image = image.resize(
            (round(image.width * scale), round(image.height * scale)), PIL.Image.Resampling.BILINEAR
        )
        left, top = random.randint(0, image.width - SIZE), random.randint(0, image.height - SIZE)
        batch[place] = np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))
