"""The directory of a checkpoint: the sums of its files, so that any flipped bit is noticed, and its disk."""

import contextlib
import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator

from etils import epath

from resnet_jax.files import as_path, read_bytes, read_json, write_text
from resnet_jax.object_storage import is_url, list_objects

CHECKSUMS = "checksums.json"
CHECKPOINT_DIRECTORY = "checkpoints"

ORBAX_METADATA, COMMIT_MARK = COMMIT_FILES = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""What Orbax writes when it commits a checkpoint; the mark is for object storage, which has no rename."""


def write_checksums(directory: epath.Path, *, apart: Collection[str], only_apart: bool) -> None:
    """Writes the sums of a directory's files into its `checksums.json`.

    Args:
        directory: Holds the files.
        apart: Files, by their path in the directory, that are left out at first.
        only_apart: Add the sums of the files `apart` to those that are stored.
    """
    if only_apart:
        stored = read_json(directory / CHECKSUMS)
        sums = stored | _checksums(directory, [directory / name for name in apart])
    else:
        sums = _checksums(directory, _files(directory))
        sums = {name: digest for name, digest in sums.items() if name not in apart}
    # Without a newline at its end, so that the file is no JSON when its last byte is lost.
    write_text(directory / CHECKSUMS, json.dumps(sums, separators=(",", ":")))


def complete_in(directory: epath.Path) -> list[str]:
    """Returns the names of the checkpoints below a URL that were committed, or copied there from a disk.

    What is being written has its final name from the beginning. Orbax marks it at its end; on a disk the
    commit is a rename, and is known by the sums, which then hold that of ORBAX_METADATA.
    """
    files: dict[str, set[str]] = {}
    for name in list_objects(directory):
        step, _, file = name.partition("/")
        files.setdefault(step, set()).add(file)
    complete = [step for step, there in files.items() if COMMIT_MARK in there]
    for step in files.keys() - set(complete):
        with contextlib.suppress(OSError, ValueError):
            if ORBAX_METADATA in read_json(directory / step / CHECKSUMS):
                complete.append(step)
    return complete


def mark_copies(workdir: epath.Path) -> None:
    """Marks checkpoints that were copied into object storage as committed; Orbax deletes what is not."""
    directory = workdir / CHECKPOINT_DIRECTORY
    for step in complete_in(directory) if is_url(directory) else []:
        if COMMIT_MARK not in list_objects(directory / step):
            write_text(directory / step / COMMIT_MARK, f"{step} was copied here\n")


def find_damage(directory: epath.Path, *, optional: Collection[str]) -> str | None:
    """Returns what is wrong with the files of a directory, in a few words; None if nothing is.

    Files without a sum do not matter: Finder, Explorer and tools that synchronize folders add some.

    Args:
        directory: Holds the files.
        optional: Files that alone would not make a checkpoint.
    """
    try:
        expected = read_json(directory / CHECKSUMS)
    except (OSError, ValueError):
        return f"{CHECKSUMS} cannot be read"
    if not isinstance(expected, dict) or not (expected.keys() - set(optional)):
        return f"{CHECKSUMS} names no files"
    there = [directory / name for name in expected if (directory / name).is_file()]
    found = _checksums(directory, there)
    wrong = sorted(name for name in expected if expected[name] != found.get(name))
    if not wrong:
        return None
    kind = "is missing" if wrong[0] not in found else "is not as it was written (its checksum differs)"
    return f"{wrong[0]} {kind}"


def _checksums(directory: epath.Path, files: Iterable[epath.Path]) -> dict[str, str]:
    named = {str(file.relative_to(directory)): file for file in files if CHECKSUMS not in file.name}
    return {name: hashlib.sha256(read_bytes(named[name])).hexdigest() for name in sorted(named)}


def _files(directory: epath.Path) -> Iterator[epath.Path]:
    if is_url(directory):
        yield from (directory / name for name in list_objects(directory))
        return
    for entry in directory.iterdir():
        yield from _files(entry) if entry.is_dir() else [entry]


def check_space(directory: epath.Path, needed: int) -> None:
    """Raises OSError if a local disk has less space than `needed` bytes, which a save would fill."""
    if is_url(directory):
        return
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(f"No space left on device: it takes {needed:,} bytes, and {free:,} are free")


def inode_of(directory: epath.Path) -> int | None:
    """Returns what tells a directory from another one created in its place; None on object storage."""
    try:
        return None if is_url(directory) else os.stat(directory).st_ino
    except FileNotFoundError:
        return 0


def describe_missing_run(workdir: epath.PathLike) -> str:
    """Returns what to do about a directory without checkpoints; names the run beside it that was meant."""
    path, meant = as_path(workdir), ""
    if not is_url(path) and not path.exists() and path.parent.is_dir():
        runs = [entry.name for entry in path.parent.iterdir() if (entry / CHECKPOINT_DIRECTORY).is_dir()]
        close = difflib.get_close_matches(path.name, runs, 1, 0.5)
        meant = f" did you mean {path.parent / close[0]}? Otherwise" if close else ""
    return f"{workdir} holds no checkpoint;{meant} train into it with `resnet-jax train --workdir={workdir}`"


def innermost_cause(error: BaseException) -> str:
    """Returns the innermost cause of an error in one line."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # TensorStore wraps what the operating system said: '…: No space left on device [os_error_code='28']'.
    wrapped = re.search(r"([^:]+) \[os_error_code", text)
    return wrapped[1].strip() if wrapped else text[:300]
