"""Object storage: whole objects in a bucket behind URLs such as gs://bucket/run, through fsspec.

An object store has no rename, no append and no lock. An object is there whole or not at all, and on Google
Cloud Storage a write can be made to depend on the generation of the object that it replaces.
"""

import contextlib
import importlib.util
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from resnet_jax.errors import UsageError

_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
"""Of each scheme, the package that opens it and the extra of this package that installs it."""

_SECONDS = 30.0  # Without a byte from the server, after which a request is made again.

Generation = str
"""What tells one version of an object from every other, as Google Cloud Storage numbers them."""


class StorageError(UsageError):
    """A URL that cannot be used here; the message says why and what to install or to write instead."""


class ConflictError(Exception):
    """An object is not of the generation that a write was to replace: somebody else has written it."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path names a place in object storage."""
    return "://" in os.fspath(path)


def check_scheme(url: str | os.PathLike[str]) -> None:
    """Prepares object storage for use; call it before the first access to a URL.

    Raises:
        StorageError: The scheme is unknown, or the package that opens it is not installed.
    """
    scheme = os.fspath(url).partition("://")[0]
    if scheme not in _PACKAGES:
        known = ", ".join(f"{known}://" for known in _PACKAGES)
        raise StorageError(f"{os.fspath(url)} begins with {scheme}://; use a local path, or one of {known}")
    module, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(module) is None:
        raise StorageError(
            f"{os.fspath(url)} needs {module}, which is not installed: pip install 'resnet-jax[{extra}]'"
        )
    # TensorFlow, where it is installed, would be asked instead: another client with its own rules.
    os.environ.setdefault("EPATH_USE_TF", "false")
    _configure(scheme)


def _configure(scheme: str) -> None:
    from fsspec.config import conf

    # A listing that was kept never expires, and hides what another process wrote.
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "gs":
        from aiohttp import ClientTimeout

        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # It logs what it raises, with a traceback.

        # gcsfs repeats a request that fails; by default it waits five minutes for one that is not answered.
        options["requests_timeout"] = ClientTimeout(total=None, sock_connect=_SECONDS, sock_read=_SECONDS)
    conf.setdefault(scheme, {}).update(options)


def _resolve(url: str | os.PathLike[str]) -> tuple[Any, str]:
    """Returns the file system of a URL (an fsspec.AbstractFileSystem) and the path in it."""
    import fsspec.core

    check_scheme(url)
    return fsspec.core.url_to_fs(os.fspath(url))


def read_object(url: str | os.PathLike[str], start: int | None = None, end: int | None = None) -> bytes:
    """Returns the bytes of an object from `start` to `end`, by default all of them, in one request.

    Raises:
        FileNotFoundError: There is no such object.
    """
    storage, path = _resolve(url)
    return bytes(storage.cat_file(path, start=start, end=end))


def list_objects(url: str | os.PathLike[str]) -> dict[str, int]:
    """Returns the sizes in bytes of all objects below a URL by their path relative to it, sorted.

    Where there are none, none are returned: a directory of an object store does not exist by itself.
    """
    storage, path = _resolve(url)
    root = path.rstrip("/") + "/"
    found = storage.find(root, detail=True).values()
    return {
        entry["name"].removeprefix(root): int(entry["size"])
        for entry in sorted(found, key=lambda entry: str(entry["name"]))
        if entry["name"].startswith(root) and not entry["name"].endswith("/")
    }


def upload(source: str | os.PathLike[str], url: str | os.PathLike[str]) -> None:
    """Writes a local file as an object, in the place of one that was there."""
    storage, path = _resolve(url)
    storage.put_file(os.fspath(source), path)


def upload_directory(source: str | os.PathLike[str], url: str | os.PathLike[str]) -> None:
    """Writes all files of a local directory as objects below a URL."""
    for directory, _, names in os.walk(source):
        for name in names:
            file = os.path.join(directory, name)
            upload(file, f"{os.fspath(url)}/{os.path.relpath(file, source).replace(os.sep, '/')}")


def delete_objects(url: str | os.PathLike[str], *, first: str | None = None) -> None:
    """Deletes all objects below a URL, the one named `first` before the others."""
    storage, path = _resolve(url)
    names = sorted(list_objects(url), key=lambda name: name != first)
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # Deleted by a request whose reply was lost.
            storage.rm_file(f"{path}/{name}")


def copy_objects(url: str | os.PathLike[str], to: str | os.PathLike[str]) -> None:
    """Copies all objects below a URL to another one in the same store, without passing through here."""
    storage, path = _resolve(url)
    _, target = _resolve(to)
    for name in list_objects(url):
        storage.cp_file(f"{path}/{name}", f"{target}/{name}")


@contextlib.contextmanager
def local_copy(path: str | os.PathLike[str]) -> Iterator[epath.Path]:
    """Yields a local directory with the files of a directory; itself, if it is local.

    Every object is read once, several at a time, into a temporary directory that goes with the block.
    """
    if not is_url(path):
        yield epath.Path(path)
        return
    storage, root = _resolve(path)
    names = list(list_objects(path))
    with tempfile.TemporaryDirectory(prefix="resnet_jax-") as directory:
        targets = [os.path.join(directory, *name.split("/")) for name in names]
        for target in targets:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        if names:
            storage.get([f"{root}/{name}" for name in names], targets)
        yield epath.Path(directory)


def read_versioned(url: str | os.PathLike[str]) -> tuple[bytes, Generation] | None:
    """Returns an object of Google Cloud Storage and its generation; None if there is none."""
    storage, path = _resolve(url)
    try:
        headers, data = storage.call("GET", storage.url(path))
    except FileNotFoundError:
        return None
    return bytes(data), headers["X-Goog-Generation"]


def write_versioned(url: str | os.PathLike[str], data: bytes, replaces: Generation | None) -> Generation:
    """Writes an object of Google Cloud Storage if it is still of a generation, and returns the new one.

    Args:
        url: URL of the object.
        data: All of it. Write no two versions alike: one that is there already counts as written, since the
            reply to a write may be lost on its way.
        replaces: The generation that it has now; None if there is none yet.

    Raises:
        ConflictError: It has another one; nothing was written.
    """
    storage, path = _resolve(url)
    bucket, key, _ = storage.split_path(path)
    boundary = uuid.uuid4().hex
    head = json.dumps({"name": key}).encode()
    body = b"".join(
        [
            *(f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode(), head),
            f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(),
            *(data, f"\r\n--{boundary}--\r\n".encode()),
        ]
    )
    try:
        written = storage.call(
            "POST",
            f"{storage.base.removesuffix('storage/v1/')}upload/storage/v1/b/{bucket}/o",
            uploadType="multipart",
            ifGenerationMatch=replaces or "0",
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            data=body,
            json_out=True,
        )
    except FileExistsError:
        there = read_versioned(url)
        if there is None or there[0] != data:
            raise ConflictError(f"{os.fspath(url)} was written by somebody else") from None
        return there[1]
    return str(written["generation"])


def delete_versioned(url: str | os.PathLike[str], generation: Generation) -> None:
    """Deletes an object of Google Cloud Storage if it is still of a generation; otherwise does nothing."""
    storage, path = _resolve(url)
    bucket, key, _ = storage.split_path(path)
    try:
        storage.call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=generation)
    except (FileExistsError, FileNotFoundError):
        return
