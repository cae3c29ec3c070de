"""Reads the files that `torch.save` writes, without PyTorch and without executing anything.

A `.pth` is a pickle, and unpickling runs what the file names. Here the pickle's opcodes are only decoded and interpreted by a
machine of its own, which knows the few that a state dict consists of, can build dicts, lists, tuples, strings and numbers, and
takes the three functions that rebuild a tensor as descriptions of one. Everything else is refused by its name. No more memory is
taken than the file is long: its parts have to be stored as they are, and tensors are views of them.
"""

import dataclasses
import math
import os
import pickletools
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from resnet_jax.interop.foreign import InteropError

MAGIC = 0x1950A86A20F9469CFC6C
"""Begins the files that PyTorch wrote up to 1.5."""

PICKLE_LIMIT = 16 << 20
"""Bytes of the pickled names and shapes; those of ResNet-1202 are 2 MB."""

STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
REBUILD = {"torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"}
PARAMETER = "torch._utils _rebuild_parameter"
EMPTY_DICTS = {"collections OrderedDict", "builtins dict", "__builtin__ dict"}
SETTINGS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts put the state dict in a larger one."""


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of a function or class, never looked up."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """A named run of numbers in the file."""

    key: str
    dtype: Any
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refused(Exception):  # noqa: N818 (it never leaves this file)
    """Why a file is refused."""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict by name, as views of the file's numbers.

    Raises:
        InteropError: It is not a file of `torch.save`, holds more than tensors, or is not whole.
    """
    where = os.fspath(path)
    try:
        with open(where, "rb") as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
            file.seek(0)
            found, storages = read(file)
            return {name: _view(tensor, storages) for name, tensor in _tensors(found).items()}
    except Refused as error:
        raise InteropError(f"{where} is not read: {error}") from None
    except OSError as error:
        raise InteropError(f"{where} cannot be read: {error.strerror}") from error
    except Exception as error:  # zipfile and pickletools raise what they like at broken input.
        raise InteropError(
            f"{where} is no whole file of torch.save ({type(error).__name__}: {str(error)[:120]}); fetch it again, or save it with "
            "torch.save(model.state_dict(), …) or as .safetensors"
        ) from error


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Refused(
                "its parts are compressed, as torch.save never writes them; unpacked they could be of any size"
            )
        if sum(entry.file_size for entry in entries) > size:
            raise Refused(
                f"its parts claim to hold more than the file's {size:,} bytes; it is damaged, or made to fill the memory"
            )
        by_name = {entry.filename: entry for entry in entries}
        pickles = [name for name in by_name if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused("it is a zip file without data.pkl, and so not one of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        if by_name[pickles[0]].file_size > PICKLE_LIMIT:
            raise Refused(
                f"its data.pkl has {by_name[pickles[0]].file_size:,} bytes, more than the names of any net take"
            )
        if f"{folder}byteorder" in by_name and archive.read(f"{folder}byteorder") != b"little":
            raise Refused("its numbers are in big-endian order; save it as .safetensors")
        found, wanted = _interpret(archive.read(pickles[0]))
        storages = {}
        for storage in wanted.values():
            data = archive.read(by_name[f"{folder}data/{storage.key}"])
            storages[storage.key] = _numbers(data, storage)
    return found, storages


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """Reads the form before PyTorch 1.6: five pickles, then the numbers of every storage, each after their count."""
    data = file.read()
    if data[:1] != b"\x80":
        raise Refused(
            "it is neither a zip file nor a pickle; allowed are what torch.save writes and .safetensors"
        )
    magic, end = _interpret_at(data, 0)
    if magic[0] != MAGIC:
        raise Refused(
            "it is a pickle, but not one of torch.save, and pickles are not executed; save the weights as .safetensors"
        )
    _, end = _interpret_at(data, end)
    _, end = _interpret_at(data, end)
    (found, wanted), end = _interpret_at(data, end)
    (keys, _), end = _interpret_at(data, end)
    storages = {}
    for key in keys:
        storage = wanted[key]
        if int.from_bytes(data[end : end + 8], "little") != storage.count:
            raise Refused(f"its storage {key} has another length than its description says")
        length = storage.count * np.dtype(storage.dtype).itemsize
        storages[key] = _numbers(data[end + 8 : end + 8 + length], storage)
        end += 8 + length
    return found, storages


def _numbers(data: bytes, storage: Storage) -> np.ndarray:
    expected = storage.count * np.dtype(storage.dtype).itemsize
    if len(data) != expected:
        raise Refused(
            f"it is not whole: storage {storage.key} has {len(data):,} of its {expected:,} bytes; fetch it again"
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
        raise Refused(
            f"a tensor of shape {list(shape)} claims more numbers than its storage's {numbers.size:,}"
        )
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= numbers.size:
        raise Refused(f"a tensor of shape {list(shape)} reaches beyond its storage")
    step = numbers.itemsize
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], shape, [stride * step for stride in strides], writeable=False
    )


def _tensors(found: Any) -> dict[str, Tensor]:
    """Returns the state dict in what was pickled: itself, or under a key of a larger one; without the prefix of DataParallel."""
    for key in SETTINGS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict):
        raise Refused(
            f"it holds a {type(found).__name__}, not a state dict; save it with torch.save(model.state_dict(), …)"
        )
    tensors = {
        name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)
    }
    if len(tensors) != len(found) or not found:
        others = [str(name)[:40] for name in found if name not in tensors][:3]
        raise Refused(
            f"it is not a state dict: {', '.join(others) or 'it is empty'}; use torch.save(model.state_dict(), …)"
        )
    prefix = "module."
    wrapped = all(name.startswith(prefix) for name in tensors)
    return {name.removeprefix(prefix): value for name, value in tensors.items()} if wrapped else tensors


def _interpret_at(data: bytes, start: int) -> tuple[tuple[Any, dict[str, Storage]], int]:
    end = start
    for opcode, _, position in pickletools.genops(data[start : start + PICKLE_LIMIT]):
        end = start + (position or 0) + 1
        if opcode.name == "STOP":
            break
    return _interpret(data[start:end]), end


def _interpret(pickled: bytes) -> tuple[Any, dict[str, Storage]]:
    """Returns what a pickle builds, with `Tensor` for its tensors, and the storages that they lie in, by key."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(pickled):
        step = machine.steps.get(opcode.name)
        if step is None:
            raise Refused(
                f"its pickle uses {opcode.name}, which no state dict needs; nothing of it was executed"
            )
        step(argument)
    return machine.result, machine.storages


class _Machine:
    """The opcodes of a state dict. Memo and stack hold only plain values and the descriptions above."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.marks: list[list[Any]] = []
        self.storages: dict[str, Storage] = {}
        self.result: Any = None
        push: Callable[[Any], None] = self._push
        nothing: Callable[[Any], None] = lambda _: None  # noqa: E731
        self.steps: dict[str, Callable[[Any], Any]] = {
            **dict.fromkeys(("PROTO", "FRAME"), nothing),
            **dict.fromkeys(
                ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2"), push
            ),
            **dict.fromkeys(("LONG1", "BINFLOAT", "SHORT_BINSTRING", "BINSTRING"), push),
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_LIST": lambda _: push([]),
            "EMPTY_TUPLE": lambda _: push(()),
            "TUPLE1": lambda _: push(tuple(self._pop(1))),
            "TUPLE2": lambda _: push(tuple(self._pop(2))),
            "TUPLE3": lambda _: push(tuple(self._pop(3))),
            **dict.fromkeys(
                ("BINPUT", "LONG_BINPUT"), lambda key: self.memo.__setitem__(key, self.stack[-1])
            ),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda key: push(self.memo[key])),
            "MEMOIZE": lambda _: self.memo.__setitem__(len(self.memo), self.stack[-1]),
            "MARK": lambda _: self._mark(),
            "TUPLE": lambda _: push(tuple(self._since_mark())),
            "GLOBAL": lambda name: push(Global(name)),
            "STACK_GLOBAL": lambda _: push(Global(" ".join(map(str, self._pop(2))))),
            "BINPERSID": lambda _: push(self._storage(*self._pop(1))),
            "REDUCE": lambda _: push(self._call(*self._pop(2))),
            "BUILD": lambda _: self._pop(1),  # The attributes of an OrderedDict: versions of modules.
            "SETITEM": lambda _: self._set(self._pop(2)),
            "SETITEMS": lambda _: self._set(self._since_mark()),
            "APPEND": lambda _: self._append(self._pop(1)),
            "APPENDS": lambda _: self._append(self._since_mark()),
            "STOP": lambda _: setattr(self, "result", self.stack[-1]),
        }

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise Refused("its pickle is damaged")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        taken, self.stack = self.stack, self.marks.pop()
        return taken

    def _set(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or any(not isinstance(key, str | int) for key in flat[::2]):
            raise Refused("its pickle sets items of something that is no dict of names")
        target.update(zip(flat[::2], flat[1::2], strict=True))

    def _append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise Refused("its pickle appends to something that is no list")
        self.stack[-1].extend(values)

    def _storage(self, description: Any) -> Storage:
        kind, storage_type, key, _, count, *_ = description
        name = storage_type.name if isinstance(storage_type, Global) else ""
        dtype = STORAGES.get(name.removeprefix("torch "))
        if kind != "storage" or dtype is None or not isinstance(count, int) or not isinstance(key, str):
            raise Refused(f"its numbers are of a kind that is not known: {name or kind}")
        return self.storages.setdefault(key, Storage(key, dtype, count))

    def _call(self, function: Any, arguments: Any) -> Any:
        name = function.name if isinstance(function, Global) else repr(type(function).__name__)
        if name in EMPTY_DICTS and not arguments:
            return {}
        if name == PARAMETER and isinstance(arguments[0], Tensor):
            return arguments[0]
        if name in REBUILD and isinstance(arguments[0], Storage):
            storage, offset, shape, strides = arguments[:4]
            if all(isinstance(value, int) for value in (offset, *shape, *strides)):
                return Tensor(storage, offset, tuple(shape), tuple(strides))
        raise Refused(
            f"its pickle asks to call {name.replace(' ', '.')[:80]}, which is not executed: a file of weights needs only tensors; "
            "do not trust this file, or save its weights as .safetensors"
        )
