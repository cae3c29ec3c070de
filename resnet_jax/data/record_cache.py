"""Records of a set in object storage, kept on a disk of this machine up to a number of bytes.

For every shard, named by its checksum, there is a file of the records, as long as the shard and full of
holes, a file of their sums, and one of where they begin. All processes of the machine share them: what is
written twice is the same. A record is there when its sum is, and is compared with it whenever it is read, so
that a crash or a deleted file leaves nothing wrong. Whoever reads in random order finds any record as likely
as any other, so what was kept is not replaced: when the cache is full, the rest is read from the store.
"""

import functools
import os
import shutil
import time
import zlib
from pathlib import Path

import numpy as np

from resnet_jax.console import print_note
from resnet_jax.data.data_error import DataError
from resnet_jax.data.record_layout import Offsets
from resnet_jax.files import expand_home, open_for_replacing

_RECOUNT = 64 << 20  # Bytes that this process writes before it counts those of all processes again.
_SPARE = 1 << 30  # Bytes of the disk that stay free.
_OLD = 86400.0  # Seconds after which a shard that nobody opened may be deleted for others.
_SUFFIXES = KEPT, SUMS, INDEX = (".records", ".sums", ".index.npy")


class RecordCache:
    """A directory of records.

    Args:
        directory: On a local disk; made if it is not there.
        limit: Bytes that it may hold.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, directory: str, limit: int) -> None:
        self._directory, self._limit = Path(directory), limit
        self._directory.mkdir(parents=True, exist_ok=True)
        self._sums: dict[str, np.ndarray] = {}
        self._written, self._full = _RECOUNT, False

    def __reduce__(self) -> tuple[type["RecordCache"], tuple[str, int]]:
        return RecordCache, (str(self._directory), self._limit)

    def offsets(self, shard: str) -> Offsets | None:
        """Returns where the records of a shard begin, if it is known here."""
        try:
            return np.load(self._directory / f"{shard}{INDEX}", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def keep_offsets(self, shard: str, offsets: Offsets) -> None:
        """Keeps where the records of a shard begin."""
        try:
            with open_for_replacing(self._directory / f"{shard}{INDEX}") as file:
                np.save(file, offsets)
        except OSError as error:
            self._give_up(error)

    def read(self, shard: str, number: int, offsets: Offsets) -> bytes | None:
        """Returns a record, if it is here and as it was written."""
        sums = self._open(shard, len(offsets) - 1)
        if sums is None:
            return None
        length, expected = int(sums[number, 0]), int(sums[number, 1])
        if not length:
            return None
        try:
            record = self._pread(shard, length - 1, int(offsets[number]))
        except OSError:
            return None
        return record if len(record) == length - 1 and zlib.crc32(record) == expected else None

    def keep(self, shard: str, number: int, offsets: Offsets, record: bytes) -> None:
        """Keeps a record, unless the cache or the disk is full."""
        if self._is_full(len(record)):
            return
        sums = self._open(shard, len(offsets) - 1)
        if sums is None:
            return
        try:
            file = os.open(self._directory / f"{shard}{KEPT}", os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(file, record, int(offsets[number]))
            finally:
                os.close(file)
        except OSError as error:
            self._give_up(error)
            return
        sums[number] = len(record) + 1, zlib.crc32(record)
        self._written += len(record)

    def _pread(self, shard: str, length: int, position: int) -> bytes:
        file = os.open(self._directory / f"{shard}{KEPT}", os.O_RDONLY)
        try:
            return os.pread(file, length, position)
        finally:
            os.close(file)

    def _open(self, shard: str, records: int) -> np.ndarray | None:
        """Returns the lengths (more by 1; 0 where there is none) and sums of a shard's records, shared."""
        if shard not in self._sums:
            path = self._directory / f"{shard}{SUMS}"
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    os.truncate(file, 8 * records)  # Longer by zeros, or as long as it is.
                    os.utime(file)
                finally:
                    os.close(file)
                self._sums[shard] = np.memmap(path, np.uint32, "r+", shape=(records, 2))
            except (OSError, ValueError) as error:
                self._give_up(error)
                return None
        return self._sums[shard]

    def _is_full(self, more: int) -> bool:
        if not self._full and self._written + more >= _RECOUNT:
            self._written = 0
            used = self._used() + more
            if used + _RECOUNT > self._limit:
                used -= self._delete_old()
            free = shutil.disk_usage(self._directory).free
            self._full = used + _RECOUNT > self._limit or free < _SPARE + _RECOUNT
        return self._full

    def _used(self) -> int:
        files = [entry for entry in os.scandir(self._directory) if entry.name.endswith(_SUFFIXES)]
        return sum(entry.stat().st_blocks * 512 for entry in files)

    def _delete_old(self) -> int:
        """Deletes shards that no process has opened for a day, and returns their bytes."""
        freed = 0
        for path in self._directory.glob(f"*{SUMS}"):
            shard = path.name.removesuffix(SUMS)
            if shard in self._sums or time.time() - path.stat().st_mtime < _OLD:
                continue
            for suffix in _SUFFIXES:
                there = self._directory / f"{shard}{suffix}"
                freed += there.stat().st_blocks * 512 if there.exists() else 0
                there.unlink(missing_ok=True)
        return freed

    def _give_up(self, error: Exception) -> None:
        if not self._full:
            print_note(f"the cache {self._directory} is not written any more: {error}")
        self._full = True


DIRECTORY, GIGABYTES = "RESNET_JAX_DATA_CACHE", "RESNET_JAX_DATA_CACHE_GB"
"""Environment variables: a directory for what is read from object storage, and how much it may hold."""

_DEFAULT_GIGABYTES = 50.0


@functools.cache
def open_cache() -> RecordCache | None:
    """Returns the cache that the environment names; None, and a note, if it names none.

    Raises:
        DataError: It cannot be used.
    """
    directory, size = os.environ.get(DIRECTORY), os.environ.get(GIGABYTES)
    if not directory:
        print_note(
            f"images are read from object storage again in every epoch; {DIRECTORY}=DIRECTORY keeps them on "
            f"a disk of this machine, up to {_DEFAULT_GIGABYTES:.0f} GB or {GIGABYTES}"
        )
        return None
    try:
        limit = float(size or _DEFAULT_GIGABYTES)
    except ValueError:
        raise DataError(f"{GIGABYTES} is {size!r}; it must be a number of gigabytes") from None
    try:
        return RecordCache(expand_home(directory), int(limit * 1e9))
    except OSError as error:
        raise DataError(f"{DIRECTORY} is {directory}, which cannot be used: {error.strerror}") from error
