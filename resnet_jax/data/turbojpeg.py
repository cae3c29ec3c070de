"""Decodes a region of a JPEG alone, by TurboJPEG's own cropping, which no Python package wraps.

Only the entropy coding is read outside the region: no transform, no interpolation of chroma, no colors, and
nothing at all below it. The library is the one inside the package `turbojpeg`, or the system's; both are
called through their C interface (version 3).
"""

import ctypes
import functools
import importlib.metadata
import threading
from ctypes.util import find_library
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

ALIGNMENT = 16
"""A region begins at a multiple of this column: the widest block of 4:2:0 and 4:2:2 images."""

_DECOMPRESS, _RGB = 1, 0  # TJINIT_DECOMPRESS and TJPF_RGB.
_threads = threading.local()


class Region(ctypes.Structure):
    """Whole pixels of the decoded image; the left one is a multiple of `ALIGNMENT`."""

    _fields_ = (
        ("left", ctypes.c_int),
        ("top", ctypes.c_int),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
    )


class _Factor(ctypes.Structure):
    _fields_ = (("numerator", ctypes.c_int), ("denominator", ctypes.c_int))


def decode_region(encoded: bytes, region: Region, factor: int, out: UInt8[np.ndarray, "h w 3"]) -> None:
    """Decodes a region of a JPEG at 1/factor into `out`.

    The pixels equal those of decoding the whole image, except at the region's edges.

    Args:
        encoded: The JPEG, neither CMYK nor YCCK.
        region: Region of the decoded image.
        factor: 1, 2, 4 or 8.
        out: Contiguous.

    Raises:
        ValueError: The library cannot do this for the file, or warns of damage, or there is no library;
            decode it whole.
    """
    library = find()
    if library is None:
        raise ValueError("no TurboJPEG of version 3 was found")
    decoder = getattr(_threads, "decoder", None)
    if decoder is None:
        decoder = _threads.decoder = _Decoder(library)
    handle, size = decoder.handle, len(encoded)
    if (
        library.tj3DecompressHeader(handle, encoded, size)
        or library.tj3SetScalingFactor(handle, _Factor(1, factor))
        or library.tj3SetCroppingRegion(handle, region)
        or library.tj3Decompress8(handle, encoded, size, out.ctypes.data, 0, _RGB)
    ):
        raise ValueError(library.tj3GetErrorStr(handle).decode(errors="replace"))


@functools.cache
def find() -> ctypes.CDLL | None:
    """Returns the library, None where there is none, or one without cropping."""
    for path in (_packaged(), find_library("turbojpeg")):
        if path:
            try:
                return _with_types(ctypes.CDLL(path))
            except (OSError, AttributeError):  # It does not load, or is of version 2.
                continue
    return None


def library_path() -> str | None:
    """Returns the path of the TurboJPEG that decodes regions; None if none is found."""
    library = find()
    return None if library is None else str(library._name)


def _packaged() -> str | None:
    try:
        files = importlib.metadata.files("turbojpeg") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next(
        (str(Path(str(file.locate()))) for file in files if file.name.startswith("libturbojpeg")), None
    )


def _with_types(library: ctypes.CDLL) -> ctypes.CDLL:
    handle, size = ctypes.c_void_p, ctypes.c_size_t
    library.tj3Init.restype = handle
    library.tj3GetErrorStr.restype = ctypes.c_char_p
    for name, arguments in {
        "tj3Init": [ctypes.c_int],
        "tj3Destroy": [handle],
        "tj3GetErrorStr": [handle],
        "tj3DecompressHeader": [handle, ctypes.c_char_p, size],
        "tj3SetScalingFactor": [handle, _Factor],
        "tj3SetCroppingRegion": [handle, Region],
        "tj3Decompress8": [handle, ctypes.c_char_p, size, ctypes.c_void_p, ctypes.c_int, ctypes.c_int],
    }.items():
        getattr(library, name).argtypes = arguments
    return library


class _Decoder:  # A thread's handle, destroyed with the thread.
    def __init__(self, library: ctypes.CDLL) -> None:
        self._destroy = library.tj3Destroy
        self.handle = library.tj3Init(_DECOMPRESS)
        if not self.handle:
            raise MemoryError("TurboJPEG could not be initialized")

    def __del__(self) -> None:
        self._destroy(getattr(self, "handle", None))
