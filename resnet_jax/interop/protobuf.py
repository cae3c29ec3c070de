"""Reads messages in the wire format of protocol buffers: numbered fields, without a schema."""

from collections import defaultdict

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED = {FIXED64: 8, FIXED32: 4}

Value = int | memoryview  # Of a field: a varint as a number, anything else as its bytes.


class WireError(ValueError):
    """Bytes that are no message."""


def fields(message: memoryview | bytes) -> dict[int, list[Value]]:
    """Returns the values of a message by the number of their field, as views of it.

    Raises:
        WireError: It ends early, or is no message.
    """
    found: dict[int, list[Value]] = defaultdict(list)
    view, at = memoryview(message), 0
    while at < len(view):
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(view, at)
            found[number].append(value)
            continue
        if kind == LENGTH:
            length, at = _varint(view, at)
        elif kind in FIXED:
            length = FIXED[kind]
        else:
            raise WireError(f"field {number} has the unknown kind {kind}")
        if length > len(view) - at:
            raise WireError(f"field {number} claims {length:,} bytes, and {len(view) - at:,} are left")
        found[number].append(view[at : at + length])
        at += length
    return dict(found)


def packed_varints(values: list[Value]) -> list[int]:
    """Returns the numbers of a repeated field, each in a value of its own or many packed in one."""
    numbers = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
        else:
            at = 0
            while at < len(value):
                number, at = _varint(value, at)
                numbers.append(number)
    return numbers


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise WireError("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError("a number has more than ten bytes")
