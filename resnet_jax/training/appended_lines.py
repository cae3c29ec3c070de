"""A text file that grows by lines: on a disk, or in object storage, where nothing can be appended."""

import os
from typing import Protocol

from etils import epath

from resnet_jax.files import write_text
from resnet_jax.lease import LeaseLostError, confirm_ownership
from resnet_jax.object_storage import (
    ConflictError,
    Generation,
    is_url,
    read_versioned,
    write_versioned,
)
from resnet_jax.training.background_uploads import BackgroundUploads


class AppendedLines(Protocol):
    """A text file that grows by lines."""

    def write(self, line: str) -> None:
        """Appends a line, so that it survives the process; in object storage soon, and not at once."""

    def sync(self) -> None:
        """Returns when all lines survive the machine."""

    def close(self) -> None:
        """Writes what is left and closes the file."""


def append_lines(path: epath.Path, begun: str) -> AppendedLines:
    """Writes a file that begins with a text, and returns it for appending lines."""
    return _ObjectLines(path, begun) if is_url(path) else _FileLines(path, begun)


class _FileLines:
    def __init__(self, path: epath.Path, begun: str) -> None:
        write_text(path, begun)
        self._file = path.open("a")

    def write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _ObjectLines:
    """All lines are in memory, and are written as one object every now and then, and when it counts."""

    def __init__(self, path: epath.Path, begun: str) -> None:
        self._path, self._lines = path, [begun.encode()]
        found = read_versioned(path)
        self._generation: Generation | None = found[1] if found else None
        self._uploads = BackgroundUploads(self._upload)
        if found is None or found[0] != self._lines[0]:
            self._uploads.changed()
            self._uploads.now()

    def write(self, line: str) -> None:
        self._lines.append(line.encode() + b"\n")
        self._uploads.changed()

    def sync(self) -> None:
        self._uploads.now()

    def close(self) -> None:
        self._uploads.close()

    def _upload(self) -> None:
        confirm_ownership(self._path.parent)
        try:
            self._generation = write_versioned(self._path, b"".join(self._lines), self._generation)
        except ConflictError:
            found = read_versioned(self._path)
            if found is None or not b"".join(self._lines).startswith(found[0]):
                raise LeaseLostError(
                    f"{self._path} was written by another run; this one ends and leaves it to the other"
                ) from None
            self._generation = found[1]  # An earlier write of this run, whose reply was lost.
            self._upload()
