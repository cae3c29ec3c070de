"""`resnet-jax prepare`: an image folder, or ImageNet's official tars, into shards of ArrayRecord.

A shard is written under another name and renamed when it is whole and on the disk; the manifest, without
which readers refuse the set, comes last. What a shard holds depends on its number, the source and the options
alone. So a preparation that was killed continues with the shards that are missing, and ends with the bytes of
an undisturbed one.
"""

import errno
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import filelock
import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from resnet_jax.console import print_note
from resnet_jax.data.class_names import are_same, describe_difference
from resnet_jax.data.crops import scaled
from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.data.decode import decode, image_size
from resnet_jax.data.encoded import Examples, Payload
from resnet_jax.data.folder import VALIDATION_NAMES, label_splits, open_folder
from resnet_jax.data.preparation_plan import compare_records, other_source, plan_of, plan_without_stamps
from resnet_jax.data.prepared import (
    MANIFEST,
    SET_FORMAT,
    Manifest,
    checksum,
    read_manifest,
    verify,
)
from resnet_jax.data.scale import keep_to_one_thread
from resnet_jax.data.shards import Shard, pack
from resnet_jax.data.tars import TRAIN, open_tars
from resnet_jax.files import is_junk, is_partial, read_json, replace_when_written, write_json

_PLAN = "plan.json"  # What the shards that are there are parts of; removed at the end.
_LOCK = ".lock"
_QUALITY = 95  # Of JPEGs that are shrunk.


def prepare(
    source: str,
    dest: str,
    *,
    shrink: int = 0,
    raw_share: float = 0.0,
    shard_examples: int = 4096,
    workers: int = 1,
    verify_contents: bool = False,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Manifest:
    """Writes a set, or what is missing of it, and returns its manifest; a set that is whole is verified.

    Args:
        source: An image folder (SPLIT/CLASS/NAME.jpg), or a folder with ImageNet's tars.
        dest: A folder that is empty, or was begun by the same preparation.
        shrink: See `convert`.
        raw_share: See `convert`.
        shard_examples: Examples per file.
        workers: Threads, each of which writes a file at a time.
        verify_contents: If the set is whole, compare the bytes of every image with the source.
        progress: Called with the number of examples that are done, and that of all.

    Raises:
        DataError: The source cannot be read, or the destination holds something else.
        OSError: The disk is full; what is whole is kept.
    """
    for name, value, fits, allowed in (
        ("--shrink", shrink, shrink >= 0, "0 or more pixels"),
        ("--raw-share", raw_share, 0 <= raw_share <= 1, "from 0 to 1"),
        ("--shard-examples", shard_examples, shard_examples >= 1, "1 or more"),
    ):
        if not fits:
            raise DataError(f"{name} is {value}; it must be {allowed}")
    if Path(dest).resolve().is_relative_to(Path(source).resolve()):
        raise DataError(f"{dest} is in {source}, where it would be taken for a split; choose another DEST")
    splits = open_splits(source)
    options = {"shrink": shrink, "raw_share": raw_share}
    plan = plan_of(splits, options, shard_examples)
    stored = functools.partial(convert, shrink=shrink, raw_share=raw_share)
    directory = Path(dest)
    _claim(directory)
    # Another that prepares the same set is waited for, and its set found whole.
    with filelock.FileLock(directory / _LOCK):
        _remove_partial(directory)
        if (directory / MANIFEST).exists():
            manifest = read_manifest(dest)
            earlier = plan_without_stamps(splits, options, shard_examples)
            if verify_contents or manifest.get("plan") == earlier:
                compare_records(dest, manifest, splits, stored if verify_contents else None)
                write_json(directory / MANIFEST, {**manifest, "plan": plan}, indent=1)
            elif manifest.get("plan") != plan:
                raise other_source(directory)
            verify(dest, manifest)
            return manifest
        _begin(directory, plan)
        manifest = _write_shards(directory, splits, stored, shard_examples, workers, progress)
        write_json(directory / MANIFEST, {**manifest, "plan": plan}, indent=1)
        (directory / _PLAN).unlink()
    return manifest


def open_splits(source: str) -> dict[str, Examples]:
    """Returns the splits of an image folder or of a folder with ImageNet's tars, with the same classes.

    Raises:
        DataError: It is neither, or its splits differ in their classes.
    """
    root = os.path.expanduser(source)
    if not epath.Path(root).is_dir():
        raise DataError(f"there is no folder {source}; SOURCE is an image folder or one with ImageNet's tars")
    if os.path.exists(os.path.join(root, TRAIN)):
        return open_tars(root)
    names, unlabeled = label_splits(root)
    if not names:
        raise DataError(
            f"{source} is empty of splits: it should hold train/CLASS/NAME.jpg and val/CLASS/NAME.jpg, "
            "CLASS/NAME.jpg alone, or ImageNet's tars"
        )
    if unlabeled:
        print_note(f"{source}: left out {', '.join(unlabeled)}, whose images have no labels")
    several = [name for name in names if name in VALIDATION_NAMES]
    if len(several) > 1:
        raise DataError(
            f"{source} has both {' and '.join(several)}, which are names of one split; remove or rename one "
            "of them"
        )
    splits: dict[str, Examples] = {
        "validation" if name in VALIDATION_NAMES else name: open_folder(root, name) for name in names
    }
    first, *others = splits.items()
    for name, examples in others:
        if not are_same(examples.class_names, first[1].class_names):
            raise DataError(
                f"splits {first[0]} and {name} of {source} differ in their classes: in {name}, "
                f"{describe_difference(first[1].class_names, examples.class_names)}"
            )
    return splits


def _claim(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            f"{directory} cannot be made a folder: a file is in its place; choose another DEST"
        ) from error
    names = {entry.name for entry in directory.iterdir()} - {_LOCK}
    entries = {name for name in names if not is_partial(name) and not is_junk(name)}
    if entries and not entries & {MANIFEST, _PLAN}:
        raise DataError(
            f"{directory} is not empty, and holds no set that was begun (it has {min(entries)}); choose "
            "another DEST"
        )


def _remove_partial(directory: Path) -> None:
    """Removes what a preparation that was killed left half-written."""
    for entry in directory.iterdir():
        if is_partial(entry.name):
            entry.unlink()


def _begin(directory: Path, plan: str) -> None:
    """Records what the shards will be parts of, or checks that those that are there belong to it."""
    if not (directory / _PLAN).exists():
        write_json(directory / _PLAN, {"plan": plan})
        return
    try:
        same = read_json(directory / _PLAN)["plan"] == plan
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise other_source(directory)


def _write_shards(
    directory: Path,
    splits: dict[str, Examples],
    stored: Callable[[Payload, int], Payload],
    shard_examples: int,
    workers: int,
    progress: Callable[[int, int], object],
) -> Manifest:
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
    path: Path, examples: Examples, part: Sequence[int], stored: Callable[[Payload, int], Payload]
) -> Shard:
    if not path.exists():
        try:
            with replace_when_written(path) as temporary:
                # JPEGs do not compress, and one record a group is what random access wants.
                writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
                for index in part:
                    writer.write(_record(examples, index, stored))
                writer.close()
        except RuntimeError as error:
            raise _writing_failed(error, path) from error
    reader = ArrayRecordReader(str(path))
    count = reader.num_records()
    reader.close()
    if count != len(part):
        path.unlink()
        raise DataError(
            f"{path} held {count} of its {len(part)} records, and is removed; check the disk and run the "
            "same command again"
        )
    return Shard(
        name=path.name,
        examples=count,
        bytes=path.stat().st_size,
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


def _writing_failed(error: RuntimeError, path: Path) -> Exception:
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        if os.strerror(code) in str(error):  # The text alone tells what failed.
            return OSError(code, os.strerror(code), str(path))
    return DataError(
        f"{path} could not be written ({' '.join(str(error).split())[:120]}); run the same command again"
    )
