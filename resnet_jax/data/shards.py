"""Files of records: how a record holds an image and its label, and which file holds which example."""

import dataclasses
import functools
import hashlib
import json
import struct
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np

from resnet_jax.data.class_names import normalized
from resnet_jax.data.encoded import Payload

_HEADER = struct.Struct("<BIII")  # Kind, label, height and width; the last two are 0 for a file.
_FILE, _PIXELS = 0, 1


class Shard(TypedDict):
    """A file of records, as the manifest knows it."""

    name: str
    examples: int
    bytes: int
    sha256: str
    labels: NotRequired[list[list[int]]]  # Runs: a label, and how many examples in turn have it.


@dataclasses.dataclass(frozen=True)
class ShardedSplit:
    """A split of a prepared set: which of its files holds an example.

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

    def stamp(self, index: int) -> str:
        return self.describe(index)

    def describe(self, index: int) -> str:
        shard, number = self.place(index)
        return f"record {number} of {self.root}/{self.shards[shard]['name']} (example {index})"

    def place(self, index: int) -> tuple[int, int]:
        """Returns the number of the shard that holds an example, and the number of its record."""
        shard = int(np.searchsorted(self.ends, index, side="right"))
        return shard, index - (self.ends[shard - 1] if shard else 0)

    @functools.cached_property
    def known_labels(self) -> np.ndarray | None:
        """The label of every example, if the manifest has them; sets of earlier versions do not."""
        runs = [run for shard in self.shards for run in shard.get("labels", [])]
        labels = np.repeat([label for label, _ in runs], [count for _, count in runs])
        return labels if len(labels) == len(self) else None


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
