"""Reads files of weights; their contents tell the format, since people name them .pth.tar, .ckpt or .th."""

import os
import tarfile
from pathlib import Path

import numpy as np
import safetensors

from resnet_jax.interop.foreign_weights import InteropError
from resnet_jax.interop.torch_files import read_state_dict

FLOATS = ("F64", "F32", "F16", "BF16")
SAFETENSORS_DTYPES = (*FLOATS, "BOOL", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8")
TORCH, SAFETENSORS_FILE, CAFFE = "torch.save", "safetensors", "caffemodel"

_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the weights; run `git lfs pull`",
    b"<": "a web page or XML, not weights; download the file itself",
    b"\x89HDF": "an HDF5 file of Keras; export the weights to safetensors there",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\x93NUMPY": "a NumPy array, not a state dict; save the weights as safetensors",
}


def weights_format(path: Path) -> str:
    """Returns the format of a file of weights.

    Raises:
        InteropError: It cannot be read, or is of a known other kind; the message says what to do.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            if path.suffix == ".caffemodel":
                return CAFFE
            for begin, what in _OTHERS.items():
                if (head + file.read(16)).startswith(begin):
                    raise InteropError(f"{path} is {what}")
                file.seek(16)
    except OSError as error:
        raise InteropError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise InteropError(f"{path} is empty; fetch it again")
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return SAFETENSORS_FILE
    if not head.startswith((b"PK", b"\x80")) and tarfile.is_tarfile(path):
        raise InteropError(f"{path} is a tar archive; unpack it first")
    return TORCH


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.safetensors` file, or of one that torch.save wrote, by name.

    Raises:
        InteropError: It cannot be read.
    """
    return read_weights(path)[0]


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns the arrays of a file of weights by name, and notes; its contents tell the format.

    Raises:
        InteropError: It cannot be read.
    """
    if weights_format(path) != SAFETENSORS_FILE:
        return read_state_dict(path)
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            names = list(file.keys())
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
            odd = {name: kind for name, kind in kinds.items() if kind not in SAFETENSORS_DTYPES}
            if odd:
                raise InteropError(
                    f"{path} has {next(iter(odd))} in {next(iter(odd.values()))}, which NumPy has no type "
                    f"for; allowed are {', '.join(SAFETENSORS_DTYPES)}. Save model.float().state_dict()"
                )
            return {name: file.get_tensor(name) for name in names}, ()
    except (OSError, safetensors.SafetensorError, TypeError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InteropError(f"{path} is no whole .safetensors file ({reason}); fetch it again") from error
