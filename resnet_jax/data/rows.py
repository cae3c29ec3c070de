"""A JPEG whose header claims fewer rows, so that a decoder stops early: the last rows of a crop's image need not be decoded.

A sequential JPEG holds its rows from top to bottom, in bands of 8 or 16. A decoder that is told of fewer rows reads the first
bands, gives the same pixels, and passes over the rest of the data (ITU-T T.81, B.2.2: the frame header holds the number of lines).
"""

_SEQUENTIAL = (0xC0, 0xC1)
_OTHER_FRAMES = set(range(0xC2, 0xD0)) - {0xC4, 0xC8, 0xCC}
_RESTART_INTERVAL, _SCAN = 0xDD, 0xDA
_BLOCK = 8


def first_rows(encoded: bytes, rows: int) -> tuple[bytes, int] | None:
    """Returns a JPEG of the first rows of this one, and how many those are: whole bands, and at least `rows`.

    None where this is not done: the image ends there, is progressive or lossless, keeps its components in scans of their own, or
    has restart markers. What follows the last band is still there, and a decoder says so.

    Args:
        encoded: A JPEG.
        rows: That are wanted; the last of them also where chroma is interpolated between bands.
    """
    at, frame = 2, None
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        kind, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4])
        if kind in _OTHER_FRAMES or kind == _RESTART_INTERVAL:
            return None
        if kind in _SEQUENTIAL:
            frame = at
        if kind == _SCAN:
            return _with_rows(encoded, frame, rows) if frame and encoded[at + 4] == encoded[frame + 9] else None
        at += 2 + length
    return None


def _with_rows(encoded: bytes, frame: int, rows: int) -> tuple[bytes, int] | None:
    height, components = int.from_bytes(encoded[frame + 5 : frame + 7]), encoded[frame + 9]
    sampling = encoded[frame + 11 : frame + 10 + 3 * components : 3]
    band = _BLOCK * max(factors & 15 for factors in sampling)
    rows = -(-(rows + 1) // band) * band
    if rows >= height:
        return None
    return b"".join((encoded[: frame + 5], rows.to_bytes(2), memoryview(encoded)[frame + 7 :])), rows
