"""Sets that `resnet-jax prepare` wrote: shards of ArrayRecord, and a manifest that is written last."""

import functools
import hashlib
import os
import struct
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath

from resnet_jax.data.data_error import DataError
from resnet_jax.data.encoded import Payload
from resnet_jax.data.folder import names_of_split
from resnet_jax.data.image_files import sorted_entries
from resnet_jax.data.shards import Shard, ShardedSplit, unpack
from resnet_jax.data.stored_examples import StoredExamples
from resnet_jax.files import as_path, is_junk, read_json
from resnet_jax.object_storage import is_url, list_objects

MANIFEST = "manifest.json"
SET_FORMAT = 1
"""Format of the manifest and the records."""


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


class PreparedExamples(ShardedSplit):
    """A split of a prepared set, read record by record."""

    def read(self, index: int) -> tuple[Payload, int]:
        shard, number = self.place(index)
        try:
            (record,) = _reader(f"{self.root}/{self.shards[shard]['name']}").read([number])
            return unpack(record)
        except (RuntimeError, IndexError, ValueError, struct.error) as error:
            raise DataError(
                f"{self.describe(index)} cannot be read: the file is damaged; copy or prepare the set again"
            ) from error

    def expect(self, indices: Sequence[int]) -> None:
        """Does nothing: a disk is not waited for."""

    def label(self, index: int) -> int:
        return self.read(index)[1] if self.known_labels is None else int(self.known_labels[index])


def is_prepared(root: str) -> bool:
    """Tells whether a folder holds a prepared set, whole or not."""
    if (as_path(root) / MANIFEST).exists():
        return True
    return any(".array_record" in entry.name and not is_junk(entry.name) for entry in sorted_entries(root))


def open_prepared(root: str, split: str) -> PreparedExamples | StoredExamples:
    """Opens a split of a prepared set, whose files must be there at their full length.

    Raises:
        DataError: The set is not whole, or has no such split.
    """
    manifest = read_manifest(root)
    split = next((name for name in names_of_split(split) if name in manifest["splits"]), split)
    if split not in manifest["splits"]:
        raise DataError(f"{root} has no split {split!r}; it has {', '.join(manifest['splits'])}")
    shards = manifest["splits"][split]["shards"]
    lengths = list_objects(root) if is_url(root) else None
    for shard in shards:
        path = as_path(root) / shard["name"]
        length = _length(path) if lengths is None else lengths.get(shard["name"], 0)
        if length != shard["bytes"]:
            raise DataError(
                f"{path} has {length} of its {shard['bytes']} bytes; copy it again, or delete it and "
                "prepare the set again"
            )
    ends = np.cumsum([shard["examples"] for shard in shards]).tolist()
    kind = StoredExamples if is_url(root) else PreparedExamples
    return kind(os.fspath(root), manifest["class_names"], shards, ends)


def _length(path: epath.Path) -> int:
    return path.stat().length if path.exists() else 0


def read_manifest(root: str) -> Manifest:
    """Returns the manifest of a set.

    Raises:
        DataError: There is none, or it is of a later format.
    """
    path = as_path(root) / MANIFEST
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
    """Reads every file of a set and returns its number of examples; in object storage lengths are compared.

    Raises:
        DataError: Names the first file whose contents are not those that were written.
    """
    examples = 0
    lengths = list_objects(root) if is_url(root) else {}
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            path = as_path(root) / shard["name"]
            if is_url(root):
                whole = lengths.get(shard["name"]) == shard["bytes"]
            else:
                whole = path.exists() and checksum(path) == shard["sha256"]
            if not whole:
                raise DataError(
                    f"{path} is missing or damaged; delete it and {MANIFEST}, and prepare the set again"
                )
            examples += shard["examples"]
    return examples


def checksum(path: epath.Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=256)
def _reader(path: str) -> ArrayRecordReader:
    return ArrayRecordReader(path, "readahead_buffer_size:0")  # One a process: it is safe in threads.
