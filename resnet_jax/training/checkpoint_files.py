"""The directory of a checkpoint: the sums of its files, so that any flipped bit is noticed, and its disk."""

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator

from etils import epath

from resnet_jax.files import as_path, read_json, write_text

CHECKSUMS = "checksums.json"
CHECKPOINT_DIRECTORY = "checkpoints"


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
    return {name: hashlib.sha256(named[name].read_bytes()).hexdigest() for name in sorted(named)}


def _files(directory: epath.Path) -> Iterator[epath.Path]:
    for entry in directory.iterdir():
        yield from _files(entry) if entry.is_dir() else [entry]


def check_space(directory: epath.Path, needed: int) -> None:
    """Raises OSError if a local disk has less space than `needed` bytes, which a save would fill."""
    if "://" in str(directory):
        return
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(f"No space left on device: it takes {needed:,} bytes, and {free:,} are free")


def inode_of(directory: epath.Path) -> int | None:
    """Returns what tells a directory from another one created in its place; None on object storage."""
    try:
        return None if "://" in str(directory) else os.stat(directory).st_ino
    except FileNotFoundError:
        return 0


def describe_missing_run(workdir: epath.PathLike) -> str:
    """Returns what to do about a directory without checkpoints; names the run beside it that was meant."""
    path, meant = as_path(workdir), ""
    if "://" not in str(path) and not path.exists() and path.parent.is_dir():
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
