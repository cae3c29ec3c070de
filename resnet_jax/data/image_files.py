"""Which files below a folder are images: by their suffix or, where that says nothing, their first bytes."""

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from etils import epath

from resnet_jax.console import print_note
from resnet_jax.data.data_error import DataError
from resnet_jax.data.stored_folders import StoredEntry, stored_entries
from resnet_jax.object_storage import is_url

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".avif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_NETPBM = frozenset(b"P%d" % kind for kind in range(1, 7))
_JUNK_FOLDERS = frozenset(["__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"])
_SHOWN = 5  # Files that a note names.


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not read as an image, and why.

    Attributes:
        path: Path relative to the folder that was searched.
        reason: A few words, such as "not an image".
    """

    path: str
    reason: str

    @property
    def hidden(self) -> bool:
        """Whether it is hidden, or a folder that an operating system made: no note needs to name it."""
        return self.reason.startswith("hidden") or self.reason == "made by the operating system"


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files below a folder.

    Attributes:
        images: Paths of the images relative to the folder, sorted.
        left_out: Everything else, sorted.
    """

    images: Sequence[str]
    left_out: Sequence[LeftOut]


def find_images(root: epath.PathLike) -> Listing:
    """Lists the images below a folder, at any depth. Links are followed, and loops of links end.

    A file is an image if its suffix is one of `IMAGE_SUFFIXES`, or if it has another one, or none, and its
    first bytes are those of an image. Files with a suffix of images are not opened.

    Raises:
        DataError: The folder cannot be listed.
    """
    images: list[str] = []
    left_out: list[LeftOut] = []
    for path, reason in _walk(os.fspath(root), "", _above(os.fspath(root))):
        if reason:
            left_out.append(LeftOut(path, reason))
        else:
            images.append(path)
    return Listing(sorted(images), sorted(left_out, key=lambda item: item.path))


def _above(root: str) -> set[tuple[int, int]]:
    """Returns what identifies the folders above a folder, so that a link to one of them is seen as a loop.

    If the folder is itself a link, it has parents here and parents where it leads.
    """
    if is_url(root):
        return set()
    parents = {*Path(root).absolute().parents, *Path(os.path.realpath(root)).parents}
    return {(status.st_dev, status.st_ino) for status in map(os.stat, parents)}


def _walk(root: str, below: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Yields every entry's path and why it is left out, "" for an image."""
    folder = f"{root}/{below}" if below else root
    if not is_url(root):
        try:
            status = os.stat(folder)
        except OSError as error:
            raise DataError(f"{folder} cannot be listed: {error.strerror or error}") from error
        if (status.st_dev, status.st_ino) in seen:
            yield below, "a link to a folder that is read already"
            return
        seen.add((status.st_dev, status.st_ino))
    for entry in sorted_entries(folder):
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith("."):
            yield path, "hidden"
        elif is_folder(entry):
            if entry.name in _JUNK_FOLDERS:
                yield path, "made by the operating system"
            else:
                yield from _walk(root, path, seen)
        else:
            yield path, why_left_out(entry)


def why_left_out(entry: "os.DirEntry[str] | StoredEntry") -> str:
    """Returns why a file is not read as an image; "" if it is one."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if not isinstance(entry, os.DirEntry):
        return "" if suffix in IMAGE_SUFFIXES else "not an image by its suffix"
    is_file = _follows(entry.is_file)
    if suffix in IMAGE_SUFFIXES and (is_file or entry.is_symlink()):
        return ""  # A broken link to an image is an error when it is read.
    if not is_file:
        return "a broken link" if entry.is_symlink() else _kind(entry)
    try:
        with open(entry.path, "rb", buffering=0) as file:
            head = file.read(16)
    except OSError as error:
        return error.strerror or str(error)
    if not head:
        return "empty"
    return "" if begins_like_an_image(head) else "not an image"


def is_folder(entry: "os.DirEntry[str] | StoredEntry") -> bool:
    """Returns whether an entry is a folder or a link to one; a link that leads to itself is none."""
    return _follows(entry.is_dir)


def _follows(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # A link to itself, or into a folder that may not be read.
        return False


def begins_like_an_image(head: bytes) -> bool:
    """Returns whether bytes are the beginning of a file of one of the formats that are read."""
    container = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis")
    netpbm = head[:2] in _NETPBM and head[2:3].isspace()
    return (
        head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or container or netpbm
    )


def _kind(entry: "os.DirEntry[str]") -> str:
    mode = entry.stat().st_mode
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device"}
    return next((name for test, name in kinds.items() if test(mode)), "not a file")


def sorted_entries(path: epath.PathLike) -> "Sequence[os.DirEntry[str] | StoredEntry]":
    """Returns the entries of a folder by name.

    Raises:
        DataError: It cannot be listed.
    """
    try:
        if is_url(path):
            return stored_entries(os.fspath(path))
        with os.scandir(path) as entries:  # Many times faster than path objects, on a million files.
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{path} cannot be listed: {error.strerror or error}") from error


def folders_in(root: epath.PathLike) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones and those of systems.

    Raises:
        DataError: It cannot be listed.
    """
    return [
        entry.name
        for entry in sorted_entries(root)
        if not entry.name.startswith(".") and entry.name not in _JUNK_FOLDERS and is_folder(entry)
    ]


_noted: set[tuple[str, tuple[LeftOut, ...]]] = set()


def note_left_out(where: str, left_out: Sequence[LeftOut]) -> None:
    """Prints one line about the files that are left out, the first time that they are found."""
    key = (where, tuple(left_out))
    if key in _noted or not (worth := [item for item in left_out if not item.hidden]):
        return
    _noted.add(key)
    shown = ", ".join(f"{item.path} ({item.reason})" for item in worth[:_SHOWN])
    more = f", and {len(worth) - _SHOWN} more" if len(worth) > _SHOWN else ""
    print_note(f"{where}: left out {len(worth)} file{'s' * (len(worth) > 1)}: {shown}{more}")
