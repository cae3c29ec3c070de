"""A prepared set in object storage: every record is a request, and many are under way at a time."""

import functools
import struct
from collections.abc import Sequence

import numpy as np

from resnet_jax.data.data_error import DataError
from resnet_jax.data.encoded import Payload
from resnet_jax.data.range_reads import IN_FLIGHT, Begun, expect, start_reading, take
from resnet_jax.data.record_cache import open_cache
from resnet_jax.data.record_layout import LayoutError, Offsets, end_of_file, read_offsets, record_in
from resnet_jax.data.shards import Shard, ShardedSplit, unpack


class StoredExamples(ShardedSplit):
    """A split of a prepared set in object storage, read record by record.

    What was read may be kept on a disk of this machine; see `resnet_jax.data.record_cache`.
    """

    def expect(self, indices: Sequence[int]) -> None:
        places = [self.place(index) for index in indices]
        _learn_layouts(self.root, [self.shards[shard] for shard in sorted({shard for shard, _ in places})])
        for shard, number in places:
            expect(self._key(shard, number), functools.partial(_start, self.root, self.shards[shard], number))

    def read(self, index: int) -> tuple[Payload, int]:
        shard, number = self.place(index)
        _learn_layouts(self.root, [self.shards[shard]])
        begin = functools.partial(_start, self.root, self.shards[shard], number)
        try:
            return unpack(take(self._key(shard, number), begin)())
        except (ValueError, struct.error) as error:
            raise DataError(
                f"{self.describe(index)} cannot be read: {error}; copy or prepare the set again"
            ) from error

    def _key(self, shard: int, number: int) -> tuple[str, str, int]:
        return self.root, self.shards[shard]["sha256"], number

    def label(self, index: int) -> int:
        return int(self._labels[index])

    @functools.cached_property
    def _labels(self) -> np.ndarray:
        if self.known_labels is not None:
            return self.known_labels
        labels = []
        for index in range(len(self)):
            if index % IN_FLIGHT == 0:
                self.expect(range(index, min(index + 2 * IN_FLIGHT, len(self))))
            labels.append(self.read(index)[1])
        return np.array(labels)


_layouts: dict[tuple[str, str], Offsets] = {}  # By directory of the set and checksum of the shard.


def _learn_layouts(root: str, shards: Sequence[Shard]) -> None:
    """Finds out where the records of some shards begin, of all at once."""
    cache = open_cache()
    asked = []
    for shard in shards:
        if (root, shard["sha256"]) in _layouts:
            continue
        known = cache.offsets(shard["sha256"]) if cache else None
        if known is not None and len(known) == shard["examples"] + 1:
            _layouts[root, shard["sha256"]] = known
            continue
        asked.append((shard, start_reading(root, shard["name"], *_end(shard))))
    for shard, tail in asked:
        begun = functools.partial(_read_part, root, shard, _end(shard)[0], tail())
        try:
            offsets = read_offsets(begun, shard["bytes"], shard["examples"])
        except (LayoutError, struct.error) as error:
            raise DataError(
                f"{root}/{shard['name']} cannot be read: {error}; copy or prepare the set again"
            ) from error
        _layouts[root, shard["sha256"]] = offsets
        if cache:
            cache.keep_offsets(shard["sha256"], offsets)


def _end(shard: Shard) -> tuple[int, int]:
    return end_of_file(shard["bytes"], shard["examples"])


def _read_part(root: str, shard: Shard, known: int, tail: bytes, begin: int, end: int) -> bytes:
    """Returns a part of a shard of which the bytes from `known` on are there."""
    if begin >= known:
        return tail[begin - known : end - known]
    return start_reading(root, shard["name"], begin, end)()


def _start(root: str, shard: Shard, number: int) -> Begun:
    """Begins to read a record; the function that is returned waits for it and returns it."""
    offsets, cache = _layouts[root, shard["sha256"]], open_cache()
    kept = cache.read(shard["sha256"], number, offsets) if cache else None
    if kept is not None:
        return lambda: kept
    begin, end = int(offsets[number]), int(offsets[number + 1])
    chunk = start_reading(root, shard["name"], begin, end)

    def finish() -> bytes:
        record = record_in(chunk(), begin)
        if cache:
            cache.keep(shard["sha256"], number, offsets, record)
        return record

    return finish
