"""`resnet-jax prepare`: an image folder, or ImageNet's official tars, into shards of ArrayRecord.

A shard is written under another name and renamed when it is whole and on the disk; the manifest, without
which readers refuse the set, comes last. What a shard holds depends on its number, the source and the options
alone. So a preparation that was killed continues with the shards that are missing, and ends with the bytes of
an undisturbed one.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
from etils import epath

from resnet_jax.console import print_note
from resnet_jax.data.class_names import are_same, describe_difference
from resnet_jax.data.data_error import DataError
from resnet_jax.data.encoded import Examples
from resnet_jax.data.folder import VALIDATION_NAMES, label_splits, open_folder
from resnet_jax.data.image_files import sorted_entries
from resnet_jax.data.preparation_plan import compare_records, other_source, plan_of, plan_without_stamps
from resnet_jax.data.prepared import (
    MANIFEST,
    Manifest,
    read_manifest,
    verify,
)
from resnet_jax.data.shard_writing import DESCRIBED, convert, write_shards
from resnet_jax.data.tars import TRAIN, open_tars
from resnet_jax.files import as_path, is_junk, is_partial, read_json, write_json
from resnet_jax.lease import Lease, LeaseHeldError
from resnet_jax.object_storage import is_url, list_objects

_PLAN = "plan.json"  # What the shards that are there are parts of; removed at the end.
_LOCK = ".lock"


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
    if not is_url(dest) and Path(dest).resolve().is_relative_to(Path(source).resolve()):
        raise DataError(f"{dest} is in {source}, where it would be taken for a split; choose another DEST")
    splits = open_splits(source)
    options = {"shrink": shrink, "raw_share": raw_share}
    plan = plan_of(splits, options, shard_examples)
    stored = functools.partial(convert, shrink=shrink, raw_share=raw_share)
    directory = as_path(dest)
    _claim(directory)
    # Another that prepares the same set is waited for, and its set found whole.
    with _locked(directory):
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
        manifest = write_shards(directory, splits, stored, shard_examples, workers, progress)
        write_json(directory / MANIFEST, {**manifest, "plan": plan}, indent=1)
        _remove_plan(directory)
    return manifest


@contextlib.contextmanager
def _locked(directory: epath.Path) -> Iterator[None]:
    """Keeps others out: on a disk they wait, in object storage they get an error."""
    if not is_url(directory):
        with filelock.FileLock(directory / _LOCK):
            yield
        return
    try:
        with Lease(f"{directory}/{_LOCK}", print_note):
            yield
    except LeaseHeldError as error:
        raise DataError(f"{directory} is being prepared: {error}; wait for it, or stop it") from None


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


def _claim(directory: epath.Path) -> None:
    if is_url(directory) and not str(directory).startswith("gs://"):
        raise DataError(
            f"{directory} cannot be written; prepare to gs:// or onto a disk, and copy it from there to "
            "where it will be read"
        )
    try:
        if not is_url(directory):
            directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            f"{directory} cannot be made a folder: a file is in its place; choose another DEST"
        ) from error
    names = {entry.name for entry in sorted_entries(directory)} - {_LOCK}
    entries = {name for name in names if not is_partial(name) and not is_junk(name)}
    if entries and not entries & {MANIFEST, _PLAN}:
        raise DataError(
            f"{directory} is not empty, and holds no set that was begun (it has {min(entries)}); choose "
            "another DEST"
        )


def _remove_partial(directory: epath.Path) -> None:
    """Removes what a preparation that was killed left half-written; in object storage nothing ever is."""
    for entry in () if is_url(directory) else directory.iterdir():
        if is_partial(entry.name):
            entry.unlink()


def _begin(directory: epath.Path, plan: str) -> None:
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


def _remove_plan(directory: epath.Path) -> None:
    """Removes what only a set that is not whole needs."""
    names = list_objects(directory) if is_url(directory) else ()
    for name in (*(name for name in names if name.endswith(f".array_record{DESCRIBED}")), _PLAN):
        (directory / name).unlink()
