"""Writing files whole or not at all, and JSON, on local disks and in object storage."""

import contextlib
import json
import os
import struct
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, TypeAlias

from etils import epath

from resnet_jax.object_storage import check_scheme, is_url, read_object, upload

JsonValue: TypeAlias = bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None
JsonObject: TypeAlias = dict[str, JsonValue]

PathLike: TypeAlias = str | os.PathLike[str]

NPZ_ERRORS = (
    *(OSError, KeyError, ValueError, TypeError, EOFError, MemoryError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What NumPy and zipfile raise at a damaged .npz file."""

PARTIAL = ".partial"
"""Part of the name of a file that is still being written."""


_JUNK = frozenset(
    [".ds_store", "thumbs.db", "desktop.ini", ".directory", ".localized", "icon\r", ".stfolder"]
)


def is_junk(name: str) -> bool:
    """Returns whether a file is one that Finder, Explorer or a tool that synchronizes folders leaves."""
    lower = name.lower()
    conflict = "conflicted copy" in lower or ".sync-conflict-" in lower
    return lower in _JUNK or lower.startswith(("._", ".dropbox", ".nfs")) or conflict


def expand_home(text: str) -> str:
    """Returns a path with `~` and `~user` at its beginning replaced by the home directory; URLs stay."""
    return os.path.expanduser(text) if text.startswith("~") else text


def as_path(path: PathLike) -> epath.Path:
    """Returns a path or URL as an object, with `~` at its beginning replaced by the home directory."""
    if is_url(path):
        check_scheme(path)
    return epath.Path(expand_home(os.fspath(path)))


def absolute_path(path: PathLike) -> epath.Path:
    """Returns a path with neither `~` nor links nor `..` in it; URLs stay."""
    return as_path(path) if is_url(path) else as_path(path).resolve()


def is_partial(name: str) -> bool:
    """Returns whether a file name is that of a temporary file, which a killed process may leave behind."""
    return PARTIAL in name


@contextlib.contextmanager
def replace_when_written(path: PathLike) -> Iterator[epath.Path]:
    """Yields a temporary path in the same directory, and renames it to `path` when the block ends.

    Whoever opens `path` finds the old file or the new one, complete. If the block raises, the temporary file
    is removed and `path` stays as it was. A local file is on the disk before it is renamed. For a URL the
    temporary file is a local one, which is uploaded as one object.

    Example:
        >>> with replace_when_written("weights.npz") as temporary, temporary.open("wb") as file:
        ...     np.savez(file, **arrays)
    """
    target = as_path(path)
    if is_url(target):
        with tempfile.TemporaryDirectory(prefix="resnet_jax-") as directory:
            temporary = epath.Path(directory) / target.name
            yield temporary
            upload(temporary, target)
        return
    temporary = target.parent / f".{target.name}{PARTIAL}-{os.getpid()}-{threading.get_ident()}"
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def open_for_replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """Yields a binary file that becomes `path` when the block ends; see `replace_when_written`."""
    with replace_when_written(path) as temporary, temporary.open("wb") as file:
        yield file


def write_bytes(path: PathLike, data: bytes) -> None:
    """Writes a file, whole or not at all."""
    with open_for_replacing(path) as file:
        file.write(data)


def write_text(path: PathLike, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all; bytes of file names that are no UTF-8 are escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: PathLike, value: object, *, indent: int | None = None) -> None:
    """Writes a value as JSON with a final newline, whole or not at all; without `indent`, on one line."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def read_bytes(path: PathLike) -> bytes:
    """Returns what a file holds; of an object in object storage, by one request.

    Raises:
        OSError: It cannot be read.
    """
    return read_object(path) if is_url(path) else as_path(path).read_bytes()


def read_json(
    path: PathLike,
) -> Any:  # What a file holds has no static type; callers declare what they expect.
    """Returns the value that a JSON file holds.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no JSON.
    """
    return json.loads(read_bytes(path).decode())
