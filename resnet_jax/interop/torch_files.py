"""Reads the files that `torch.save` writes, without PyTorch and without executing anything.

A `.pth` is a pickle, and unpickling runs what the file names; `resnet_jax.interop.state_dict_pickle`
interprets it instead. No more memory is taken than the file is long: its parts have to be stored as they are,
and tensors are views of them.
"""

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from resnet_jax.interop.foreign_weights import InteropError
from resnet_jax.interop.state_dict_pickle import (
    PICKLE_LIMIT,
    Opaque,
    RefusedError,
    Storage,
    Tensor,
    interpret,
)

MAGIC = 0x1950A86A20F9469CFC6C  # Begins the files that PyTorch wrote up to 1.5.

# Keys under which training scripts put the state dict in a larger one; averaged weights come first.
AVERAGED_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
PLAIN_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "teacher", "student")


Numbers = Callable[[Storage], np.ndarray]
"""Reads the numbers of a storage."""


def read_state_dict(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns the arrays of a state dict by name, as views of the file's numbers, and notes about the file.

    The state dict may be part of what a training script saved. Only its own numbers are read.

    Raises:
        InteropError: It is not a file of `torch.save`, its state dict holds more than tensors, or it is not
            whole.
    """
    try:
        with path.open("rb") as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
            file.seek(0)
            found, numbers = read(file)
            tensors, notes = _tensors(found)
            used = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
            storages = {key: numbers(storage) for key, storage in used.items()}
            return {name: _view(tensor, storages) for name, tensor in tensors.items()}, notes
    except RefusedError as error:
        raise InteropError(f"{path} is not read: {error}") from None
    except OSError as error:
        raise InteropError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # zipfile and pickletools raise what they like at broken input.
        raise InteropError(
            f"{path} is no whole file of torch.save ({type(error).__name__}: {str(error)[:120]}); fetch it "
            "again, or save it with torch.save(model.state_dict(), …) or as .safetensors"
        ) from error


def _read_zip(file: BinaryIO) -> tuple[object, Numbers]:
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise RefusedError(
                "its parts are compressed, as torch.save never writes them; unpacked they could be of any "
                "size"
            )
        if sum(entry.file_size for entry in entries) > size:
            raise RefusedError(
                f"its parts claim to hold more than the file's {size:,} bytes; it is damaged, or made to "
                "fill the memory"
            )
        by_name = {entry.filename: entry for entry in entries}
        pickles = [name for name in by_name if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise RefusedError("it is a zip file without data.pkl, and so not one of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        if by_name[pickles[0]].file_size > PICKLE_LIMIT:
            raise RefusedError(
                f"its data.pkl has {by_name[pickles[0]].file_size:,} bytes, more than the names of any net "
                "take"
            )
        if f"{folder}byteorder" in by_name and archive.read(f"{folder}byteorder") != b"little":
            raise RefusedError("its numbers are in big-endian order; save it as .safetensors")
        found, _, _ = interpret(archive.read(pickles[0]))

    def numbers(storage: Storage) -> np.ndarray:
        with zipfile.ZipFile(file) as opened:
            return _numbers(opened.read(f"{folder}data/{storage.key}"), storage)

    return found, numbers


def _read_legacy(file: BinaryIO) -> tuple[object, Numbers]:
    """Reads the form before PyTorch 1.6: five pickles, then every storage, each after its length."""
    data = file.read()
    if data[:1] != b"\x80":
        raise RefusedError(
            "it is neither a zip file nor a pickle; allowed are what torch.save writes and .safetensors"
        )
    magic, _, end = interpret(data)
    if magic != MAGIC:
        raise RefusedError(
            "it is a pickle, but not one of torch.save, and pickles are not executed; save the weights as "
            ".safetensors"
        )
    _, _, end = interpret(data, end)
    _, _, end = interpret(data, end)
    found, wanted, end = interpret(data, end)
    keys, _, end = interpret(data, end)
    starts = {}
    for key in cast(list[str], keys):
        if key not in wanted:
            break  # What follows cannot be found; whether it is needed is seen later.
        storage = wanted[key]
        if int.from_bytes(data[end : end + 8], "little") != storage.count:
            raise RefusedError(f"its storage {key} has another length than its description says")
        starts[key] = end + 8
        end += 8 + storage.count * storage.dtype.itemsize

    def numbers(storage: Storage) -> np.ndarray:
        start = starts[storage.key]
        return _numbers(data[start : start + storage.count * storage.dtype.itemsize], storage)

    return found, numbers


def _numbers(data: bytes, storage: Storage) -> np.ndarray:
    expected = storage.count * storage.dtype.itemsize
    if len(data) != expected:
        raise RefusedError(
            f"it is not whole: storage {storage.key} has {len(data):,} of its {expected:,} bytes; fetch it "
            "again"
        )
    return np.frombuffer(data, storage.dtype)


def _view(tensor: Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    numbers = storages[tensor.storage.key]
    shape, strides = tensor.shape, tensor.strides
    sound = (
        len(shape) == len(strides)
        and len(shape) <= 8
        and min((*shape, *strides, tensor.offset), default=0) >= 0
    )
    if not sound or math.prod(shape) > max(numbers.size, 0):
        raise RefusedError(
            f"a tensor of shape {list(shape)} claims more numbers than its storage's {numbers.size:,}"
        )
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= numbers.size:
        raise RefusedError(f"a tensor of shape {list(shape)} reaches beyond its storage")
    strides_in_bytes = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, strides_in_bytes, writeable=False)


def _tensors(found: object) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the state dict, which may be under a key of a larger dict, and notes that say which."""
    found, notes = _chosen(found)
    if isinstance(found, Opaque):
        raise RefusedError(
            f"it holds a {_called(found)}, pickled with its code, which is not executed, and not a state "
            f"dict. {_SAVE}"
        )
    if not isinstance(found, dict):
        raise RefusedError(f"it holds a {type(found).__name__}, not a state dict. {_SAVE}")
    odd = {str(name): value for name, value in found.items() if not isinstance(value, Tensor)}
    unread = [f"{name[:40]} ({_called(value)})" for name, value in odd.items() if isinstance(value, Opaque)]
    if unread:
        raise RefusedError(
            f"its state dict holds {', '.join(unread[:3])}; its pickle asks to call that, and it is not "
            f"executed. A state dict holds tensors of numbers that NumPy has, or bfloat16. {_SAVE}"
        )
    if odd or not found:
        raise RefusedError(
            f"it is not a state dict: {', '.join(list(odd)[:3])[:120] or 'it is empty'}. {_SAVE}"
        )
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}, notes


_SAVE = "Where it comes from, run torch.save(model.state_dict(), 'weights.pth') and import that"


def _chosen(found: object) -> tuple[object, tuple[str, ...]]:
    """Returns the state dict within what a training script saved, averaged weights before others."""
    if not isinstance(found, dict):
        return found, ()
    keys = [key for key in (*AVERAGED_KEYS, *PLAIN_KEYS) if isinstance(found.get(key), dict) and found[key]]
    if not keys:
        whole = next((found[key] for key in PLAIN_KEYS if isinstance(found.get(key), Opaque)), found)
        return whole, ()
    chosen, notes = _chosen(found[keys[0]])
    if keys[0] in AVERAGED_KEYS and keys[-1] in PLAIN_KEYS:
        return chosen, (f"the averaged weights {keys[0]!r} are taken, not {keys[-1]!r}", *notes)
    return chosen, (f"the weights are those under {keys[0]!r}", *notes)


def _called(value: Opaque) -> str:
    return value.name.replace(" ", ".")[:80]
