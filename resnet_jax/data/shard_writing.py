"""The shards of a prepared set: each is written under another name, and renamed when it is whole."""

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from resnet_jax.data.crops import scaled
from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.data.decode import decode, image_size
from resnet_jax.data.encoded import Examples, Payload
from resnet_jax.data.prepared import SET_FORMAT, Manifest, checksum
from resnet_jax.data.scale import keep_to_one_thread
from resnet_jax.data.shards import Shard, pack
from resnet_jax.files import read_json, replace_when_written, write_json
from resnet_jax.object_storage import is_url

DESCRIBED = ".json"
"""In object storage a shard has beside it, until the set is whole, a file of what the manifest says of it."""

_QUALITY = 95  # Of JPEGs that are shrunk.


def write_shards(
    directory: epath.Path,
    splits: dict[str, Examples],
    stored: Callable[[Payload, int], Payload],
    shard_examples: int,
    workers: int,
    progress: Callable[[int, int], object],
) -> Manifest:
    """Writes the shards that are missing, and returns the manifest of the set; see `prepare`."""
    total, done = sum(map(len, splits.values())), 0
    manifest: Manifest = {
        "format": SET_FORMAT,
        "class_names": list(next(iter(splits.values())).class_names),
        "splits": {},
    }
    with ThreadPoolExecutor(workers) as pool:
        jobs: dict[str, list[Future[Shard]]] = {name: [] for name in splits}
        for name, examples in splits.items():
            count = -(-len(examples) // shard_examples)
            for number in range(count):
                path = directory / f"{name}-{number:05d}-of-{count:05d}.array_record"
                part = range(number * shard_examples, min((number + 1) * shard_examples, len(examples)))
                jobs[name].append(pool.submit(_write_shard, path, examples, part, stored))
        try:
            for name, futures in jobs.items():
                shards = []
                for future in futures:
                    shards.append(future.result())
                    done += shards[-1]["examples"]
                    progress(done, total)
                manifest["splits"][name] = {"examples": len(splits[name]), "shards": shards}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return manifest


def _write_shard(
    path: epath.Path, examples: Examples, part: Sequence[int], stored: Callable[[Payload, int], Payload]
) -> Shard:
    """Writes a shard that is not there yet, and returns what the manifest says of it."""
    described = path.parent / f"{path.name}{DESCRIBED}"
    if is_url(path) and described.exists():  # To ask the store is cheaper than to read the shard again.
        shard: Shard = read_json(described)
        return shard
    if is_url(path) or not path.exists():
        try:
            with replace_when_written(path) as temporary:
                # JPEGs do not compress, and one record a group is what random access wants.
                writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
                for index in part:
                    writer.write(_record(examples, index, stored))
                writer.close()
                if is_url(path):
                    shard = _describe(temporary, examples, part)
        except RuntimeError as error:
            raise _writing_failed(error, path) from error
        if is_url(path):
            write_json(described, shard)
            return shard
    try:
        return _describe(path, examples, part)
    except DataError:
        path.unlink()
        raise


def _describe(path: epath.Path, examples: Examples, part: Sequence[int]) -> Shard:
    reader = ArrayRecordReader(str(path))
    count = reader.num_records()
    reader.close()
    if count != len(part):
        raise DataError(
            f"{path} held {count} of its {len(part)} records, and is removed; check the disk and run the "
            "same command again"
        )
    return Shard(
        name=path.name,
        examples=count,
        bytes=path.stat().length,
        sha256=checksum(path),
        labels=_runs([examples.label(index) for index in part]),
    )


def _runs(labels: Sequence[int]) -> list[list[int]]:
    """Returns labels as runs: a label, and how many in turn have it."""
    return [[label, len(list(run))] for label, run in itertools.groupby(labels)]


def _record(examples: Examples, index: int, stored: Callable[[Payload, int], Payload]) -> bytes:
    payload, label = examples.read(index)
    try:
        return pack(stored(payload, index), label)
    except CorruptImageError as error:
        raise DataError(
            f"{examples.describe(index)}: {error}; fix or remove it, and prepare again"
        ) from error


def convert(payload: Payload, index: int, *, shrink: int, raw_share: float) -> Payload:
    """Returns an image as it is stored; every image is decoded at least in its header.

    Args:
        payload: The image.
        index: Number of the example.
        shrink: The shorter side that greater images are shrunk to; 0 keeps all as they are.
        raw_share: Share of the images that are stored as pixels, spread evenly: more disk, less decoding.

    Raises:
        CorruptImageError: It is none, or damaged, where it is decoded.
    """
    if isinstance(payload, np.ndarray):
        return payload
    width, height = image_size(payload)
    raw = int((index + 1) * raw_share) > int(index * raw_share)
    smaller = shrink and min(width, height) > shrink
    if not raw and not smaller:
        return payload
    pixels = decode(payload)
    if smaller:
        keep_to_one_thread()
        pixels = cv2.resize(pixels, scaled(width, height, shrink), interpolation=cv2.INTER_AREA)
    return (
        pixels.copy()
        if raw
        else simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=_QUALITY, colorsubsampling="420")
    )


def _writing_failed(error: RuntimeError, path: epath.Path) -> Exception:
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        if os.strerror(code) in str(error):  # The text alone tells what failed.
            return OSError(code, os.strerror(code), str(path))
    return DataError(
        f"{path} could not be written ({' '.join(str(error).split())[:120]}); run the same command again"
    )
