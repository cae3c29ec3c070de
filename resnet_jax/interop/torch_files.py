"""Reads the files that `torch.save` writes, without PyTorch and without executing anything.

A `.pth` is a pickle, and unpickling runs what the file names; `resnet_jax.interop.state_dict_pickle`
interprets it instead. No more memory is taken than the file is long: its parts have to be stored as they are,
and tensors are views of them.
"""

import math
import os
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from resnet_jax.interop.foreign_weights import InteropError
from resnet_jax.interop.state_dict_pickle import PICKLE_LIMIT, RefusedError, Storage, Tensor, interpret

MAGIC = 0x1950A86A20F9469CFC6C  # Begins the files that PyTorch wrote up to 1.5.

# Keys under which training scripts put the state dict in a larger one.
SETTINGS = ("state_dict", "model", "model_state_dict")


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict by name, as views of the file's numbers.

    Raises:
        InteropError: It is not a file of `torch.save`, holds more than tensors, or is not whole.
    """
    try:
        with path.open("rb") as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
            file.seek(0)
            found, storages = read(file)
            return {name: _view(tensor, storages) for name, tensor in _tensors(found).items()}
    except RefusedError as error:
        raise InteropError(f"{path} is not read: {error}") from None
    except OSError as error:
        raise InteropError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # zipfile and pickletools raise what they like at broken input.
        raise InteropError(
            f"{path} is no whole file of torch.save ({type(error).__name__}: {str(error)[:120]}); fetch it "
            "again, or save it with "
            "torch.save(model.state_dict(), …) or as .safetensors"
        ) from error


def _read_zip(file: BinaryIO) -> tuple[object, dict[str, np.ndarray]]:
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
        found, wanted, _ = interpret(archive.read(pickles[0]))
        return found, {
            key: _numbers(archive.read(by_name[f"{folder}data/{key}"]), storage)
            for key, storage in wanted.items()
        }


def _read_legacy(file: BinaryIO) -> tuple[object, dict[str, np.ndarray]]:
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
    storages = {}
    for key in cast(list[str], keys):
        storage = wanted[key]
        if int.from_bytes(data[end : end + 8], "little") != storage.count:
            raise RefusedError(f"its storage {key} has another length than its description says")
        length = storage.count * storage.dtype.itemsize
        storages[key] = _numbers(data[end + 8 : end + 8 + length], storage)
        end += 8 + length
    return found, storages


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


def _tensors(found: object) -> dict[str, Tensor]:
    """Returns the state dict, which may be under a key of a larger dict or have prefixes of DataParallel."""
    if not isinstance(found, dict):
        raise RefusedError(
            f"it holds a {type(found).__name__}, not a state dict; save it with "
            "torch.save(model.state_dict(), …)"
        )
    found = next((found[key] for key in SETTINGS if isinstance(found.get(key), dict)), found)
    tensors = {
        name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)
    }
    if len(tensors) != len(found) or not found:
        others = [str(name)[:40] for name in found if name not in tensors][:3]
        raise RefusedError(
            f"it is not a state dict: {', '.join(others) or 'it is empty'}; use "
            "torch.save(model.state_dict(), …)"
        )
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}
