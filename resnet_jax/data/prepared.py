"""Sets that `resnet-jax prepare` wrote: shards of ArrayRecord, and a manifest that is written last."""

import dataclasses
import functools
import hashlib
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath

from resnet_jax.data.class_names import normalized
from resnet_jax.data.data_error import DataError
from resnet_jax.data.encoded import Payload
from resnet_jax.data.folder import names_of_split
from resnet_jax.files import is_junk, read_json

MANIFEST = "manifest.json"
SET_FORMAT = 1
"""Format of the manifest and the records."""

_HEADER = struct.Struct("<BIII")  # Kind, label, height and width; the last two are 0 for a file.
_FILE, _PIXELS = 0, 1


class Shard(TypedDict):
    """A file of records, as the manifest knows it."""

    name: str
    examples: int
    bytes: int
    sha256: str


class PreparedSplit(TypedDict):
    """A split, as the manifest knows it."""

    examples: int
    shards: list[Shard]


class Manifest(TypedDict):
    """What a prepared set holds; `plan` identifies the source and the options that it was prepared with."""

    format: int
    class_names: list[str]
    splits: dict[str, PreparedSplit]
    plan: NotRequired[str]


@dataclasses.dataclass(frozen=True)
class PreparedExamples:
    """A split of a prepared set, read record by record.

    Attributes:
        root: Directory of the set.
        class_names: By label.
        shards: Shards of the split, in order.
        ends: Number of examples up to and with each shard.
    """

    root: str
    class_names: Sequence[str]
    shards: Sequence[Shard]
    ends: Sequence[int]

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def fingerprint(self) -> str:
        """Digest of the class names and of the checksums of all files, wherever the set lies."""
        parts = [list(map(normalized, self.class_names)), [shard["sha256"] for shard in self.shards]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def read(self, index: int) -> tuple[Payload, int]:
        path, number = self._place(index)
        try:
            (record,) = _reader(path).read([number])
            return unpack(record)
        except (RuntimeError, IndexError, ValueError, struct.error) as error:
            raise DataError(
                f"{self.describe(index)} cannot be read: the file is damaged; copy or prepare the set again"
            ) from error

    def label(self, index: int) -> int:
        return self.read(index)[1]

    def stamp(self, index: int) -> str:
        return self.describe(index)

    def describe(self, index: int) -> str:
        path, number = self._place(index)
        return f"record {number} of {path} (example {index})"

    def _place(self, index: int) -> tuple[str, int]:
        shard = int(np.searchsorted(self.ends, index, side="right"))
        return f"{self.root}/{self.shards[shard]['name']}", index - (self.ends[shard - 1] if shard else 0)


def pack(payload: Payload, label: int) -> bytes:
    """Returns a record of an image file, or of its pixels, and its label."""
    if isinstance(payload, np.ndarray):
        return _HEADER.pack(_PIXELS, label, *payload.shape[:2]) + payload.tobytes()
    return _HEADER.pack(_FILE, label, 0, 0) + payload


def unpack(record: bytes) -> tuple[Payload, int]:
    """Returns what `pack` was given; pixels are a view of the record."""
    kind, label, height, width = _HEADER.unpack_from(record)
    if kind == _FILE:
        return record[_HEADER.size :], label
    return np.frombuffer(record, np.uint8, offset=_HEADER.size).reshape(height, width, 3), label


def is_prepared(root: str) -> bool:
    """Tells whether a folder holds a prepared set, whole or not."""
    directory = epath.Path(root)
    return (directory / MANIFEST).exists() or any(
        ".array_record" in entry.name and not is_junk(entry.name) for entry in directory.iterdir()
    )


def open_prepared(root: str, split: str) -> PreparedExamples:
    """Opens a split of a prepared set, whose files must be there at their full length.

    Raises:
        DataError: The set is not whole, or has no such split.
    """
    manifest = read_manifest(root)
    split = next((name for name in names_of_split(split) if name in manifest["splits"]), split)
    if split not in manifest["splits"]:
        raise DataError(f"{root} has no split {split!r}; it has {', '.join(manifest['splits'])}")
    shards = manifest["splits"][split]["shards"]
    for shard in shards:
        path = epath.Path(root) / shard["name"]
        length = path.stat().length if path.exists() else 0
        if length != shard["bytes"]:
            raise DataError(
                f"{path} has {length} of its {shard['bytes']} bytes; copy it again, or delete it and "
                "prepare the set again"
            )
    return PreparedExamples(
        os.fspath(root), manifest["class_names"], shards, np.cumsum([s["examples"] for s in shards]).tolist()
    )


def read_manifest(root: str) -> Manifest:
    """Returns the manifest of a set.

    Raises:
        DataError: There is none, or it is of a later format.
    """
    path = epath.Path(root) / MANIFEST
    if not path.exists():
        raise DataError(
            f"{root} is not a whole set: it holds no {MANIFEST}; run the same `resnet-jax prepare` again to "
            "finish it"
        )
    try:
        manifest: Manifest = read_json(path)
        version = manifest["format"]
        if version <= SET_FORMAT:
            _check_manifest(manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the manifest of a prepared set; prepare the set again") from error
    if version > SET_FORMAT:
        raise DataError(
            f"{path} has format {version}; this version reads up to {SET_FORMAT}: upgrade resnet-jax"
        )
    return manifest


def _check_manifest(manifest: Manifest) -> None:
    """Raises KeyError, TypeError or ValueError unless a manifest has all fields, in their types."""
    names = manifest["class_names"]
    if len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names")
    for split in manifest["splits"].values():
        shards = split["shards"]
        for shard in shards:
            kinds = (shard["name"], str), (shard["sha256"], str), (shard["bytes"], int)
            if not all(isinstance(value, kind) for value, kind in kinds):
                raise TypeError("shards")
        if not shards or sum(shard["examples"] for shard in shards) != split["examples"]:
            raise ValueError("examples")


def verify(root: str, manifest: Manifest) -> int:
    """Reads every file of a set and returns its number of examples.

    Raises:
        DataError: Names the first file whose contents are not those that were written.
    """
    examples = 0
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            path = Path(root, shard["name"])
            if not path.exists() or checksum(path) != shard["sha256"]:
                raise DataError(
                    f"{path} is missing or damaged; delete it and {MANIFEST}, and prepare the set again"
                )
            examples += shard["examples"]
    return examples


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=256)
def _reader(path: str) -> ArrayRecordReader:
    return ArrayRecordReader(path, "readahead_buffer_size:0")  # One a process: it is safe in threads.
