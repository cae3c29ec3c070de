"""Where the records of an ArrayRecord file lie, so that one can be read without the others.

ArrayRecord (https://github.com/google/array_record) is Riegeli's format
(https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md) with a footer: the file is
a sequence of chunks, interrupted by a block header at every multiple of 64 KiB; here a chunk is one record,
uncompressed. The last block says where the footer begins, and the footer where each chunk does.
"""

import struct
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

BLOCK = 1 << 16
_BLOCK_HEADER = 24
_CHUNK = struct.Struct("<QQQQQ")  # Hash, bytes, hash of these, kind and number of records, decoded bytes.
_SIMPLE = ord("r")
_UNCOMPRESSED = 0
_BYTES_EACH = 16  # Of a record in the footer, at most.

Offsets = Int64[np.ndarray, " n_plus_1"]
"""Where each record's chunk begins, and where the last one ends."""


class LayoutError(ValueError):
    """Bytes are not those of an ArrayRecord file with one uncompressed record in a chunk."""


def read_offsets(read: Callable[[int, int], bytes], size: int, records: int) -> Offsets:
    """Returns where the records of a file begin and where the last one ends, mostly by one read of its end.

    Args:
        read: Returns the bytes of the file from a position to another one.
        size: Bytes of the file.
        records: Number of records that it holds.

    Raises:
        LayoutError: The file is another one.
    """
    begin, _ = end_of_file(size, records)
    tail = read(begin, size)
    if size % BLOCK or size < 2 * BLOCK or len(tail) != size - begin:
        raise LayoutError("the file does not end as ArrayRecord files do")
    postscript = _records_of(tail, begin, size - BLOCK)
    footer = _fields(postscript[0]).get(1, 0)
    if not 0 < footer < size:
        raise LayoutError("the file does not say where its footer is")
    if footer < begin:
        begin, tail = footer, read(footer, size)
    _, *entries = _records_of(tail, begin, footer)  # The first one describes the file.
    fields = [_fields(entry) for entry in entries]
    if len(fields) != records or any(entry.get(3, 0) != 1 for entry in fields):
        raise LayoutError(f"the file does not hold {records} records, each in a chunk of its own")
    return np.array([*(entry[1] for entry in fields), footer], np.int64)


def end_of_file(size: int, records: int) -> tuple[int, int]:
    """Returns the part of a file that `read_offsets` reads first, and which mostly suffices."""
    return max(0, size - 4 * BLOCK - _BYTES_EACH * records) // BLOCK * BLOCK, size


def record_in(data: bytes, begin: int) -> bytes:
    """Returns the record of a chunk.

    Args:
        data: The bytes of the file from where the chunk begins to where the next one does.
        begin: Position of the chunk in the file.

    Raises:
        LayoutError: They are others.
    """
    records = _records_of(data, begin, begin)
    if len(records) != 1:
        raise LayoutError(f"a chunk holds {len(records)} records, and not one")
    return records[0]


def _records_of(data: bytes, begin: int, chunk: int) -> list[bytes]:
    """Returns the records of the chunk at a position of the file; `data` begins at `begin`."""
    header = _without_block_headers(data, begin, chunk, _CHUNK.size)
    _, size, _, kind, decoded = _CHUNK.unpack(header)
    body = _without_block_headers(data, begin, chunk, _CHUNK.size + size)[_CHUNK.size :]
    if kind & 0xFF != _SIMPLE or not body or body[0] != _UNCOMPRESSED:
        raise LayoutError("a chunk is compressed")
    length, position = _varint(body, 1)
    end, sizes = position + length, []
    while position < end:
        one, position = _varint(body, position)
        sizes.append(one)
    if len(sizes) != kind >> 8 or sum(sizes) != decoded or position + decoded != len(body):
        raise LayoutError("a chunk is not as long as its header says")
    ends = position + np.cumsum([0, *sizes])
    return [body[first:last] for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


def _without_block_headers(data: bytes, begin: int, position: int, size: int) -> bytes:
    """Returns `size` bytes of chunks from a position of the file on."""
    parts = []
    while size > 0:
        if position % BLOCK == 0:
            position += _BLOCK_HEADER
        length = min(size, BLOCK - position % BLOCK)
        part = data[position - begin : position - begin + length]
        if len(part) != length:
            raise LayoutError("a chunk is cut short")
        parts.append(part)
        position, size = position + length, size - length
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns a number of variable length and where it ends."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise LayoutError("a number is cut short")


def _fields(message: bytes) -> dict[int, int]:
    """Returns the numbers of a message of Protocol Buffers by their field."""
    position, found = 0, {}
    while position < len(message):
        key, position = _varint(message, position)
        if key & 7:
            raise LayoutError("the footer holds something else than numbers")
        found[key >> 3], position = _varint(message, position)
    return found
