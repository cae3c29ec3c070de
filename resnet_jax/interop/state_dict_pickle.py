"""Interprets the pickle of a state dict; nothing that it names is looked up or executed.

The opcodes are decoded by pickletools and interpreted by a machine of its own, which knows the few that a
state dict consists of, can build dicts, lists, tuples, strings and numbers, and takes the three functions
that rebuild a tensor as descriptions of one. Everything else is refused by its name.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import cast

import ml_dtypes
import numpy as np

PICKLE_LIMIT = 16 << 20  # Bytes of the pickled names and shapes; those of ResNet-1202 are 2 MB.

STORAGES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
REBUILD = {"torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"}
PARAMETER = "torch._utils _rebuild_parameter"
EMPTY_DICTS = {"collections OrderedDict", "builtins dict", "__builtin__ dict"}

# Opcodes that push their argument.
PLAIN = (
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2"),
    *("LONG1", "BINFLOAT", "SHORT_BINSTRING", "BINSTRING"),
)


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of a function or class, never looked up."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """A named run of numbers in the file."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class RefusedError(Exception):
    """Why a file is refused; it never leaves the reader of the file."""


def interpret(pickled: bytes, start: int = 0) -> tuple[object, dict[str, Storage], int]:
    """Returns what a pickle builds, with `Tensor` for tensors, their storages by key, and where it ends.

    Args:
        pickled: Holds the pickle.
        start: Where it begins.

    Raises:
        RefusedError: It uses an opcode, or asks for a call, that no state dict needs.
    """
    machine = _Machine()
    for opcode, argument, position in pickletools.genops(pickled[start : start + PICKLE_LIMIT]):
        end = start + (position or 0) + 1
        step = machine.steps.get(opcode.name)
        if step is None:
            raise RefusedError(
                f"its pickle uses {opcode.name}, which no state dict needs; nothing of it was executed"
            )
        step(argument)
    return machine.stack[-1], machine.storages, end


class _Machine:
    """The opcodes of a state dict. Memo and stack hold only plain values and the descriptions above."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[object, object] = {}
        self.marks: list[int] = []
        self.storages: dict[str, Storage] = {}
        push, pop, memo = self.stack.append, self._pop, self.memo
        self.steps: dict[str, Callable[[object], object]] = {
            **dict.fromkeys(PLAIN, push),
            **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda _: None),
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_LIST": lambda _: push([]),
            "EMPTY_TUPLE": lambda _: push(()),
            "TUPLE1": lambda _: push(tuple(pop(1))),
            "TUPLE2": lambda _: push(tuple(pop(2))),
            "TUPLE3": lambda _: push(tuple(pop(3))),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda key: memo.__setitem__(key, self.stack[-1])),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda key: push(memo[key])),
            "MEMOIZE": lambda _: memo.__setitem__(len(memo), self.stack[-1]),
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "TUPLE": lambda _: push(tuple(self._since_mark())),
            "GLOBAL": lambda name: push(Global(str(name))),
            "STACK_GLOBAL": lambda _: push(Global(" ".join(map(str, pop(2))))),
            "BINPERSID": lambda _: push(self._storage(*pop(1))),
            "REDUCE": lambda _: push(_call(*pop(2))),
            "BUILD": lambda _: pop(1),  # The attributes of an OrderedDict: versions of modules.
            "SETITEM": lambda _: self._set(pop(2)),
            "SETITEMS": lambda _: self._set(self._since_mark()),
            "APPEND": lambda _: self._append(pop(1)),
            "APPENDS": lambda _: self._append(self._since_mark()),
        }

    def _pop(self, count: int) -> list[object]:
        if not 0 < count <= len(self.stack):
            raise RefusedError("its pickle is damaged")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _since_mark(self) -> list[object]:
        count = len(self.stack) - self.marks.pop()
        return self._pop(count) if count else []

    def _set(self, flat: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or any(not isinstance(key, str | int) for key in flat[::2]):
            raise RefusedError("its pickle sets items of something that is no dict of names")
        target.update(zip(flat[::2], flat[1::2], strict=True))

    def _append(self, values: list[object]) -> None:
        if not isinstance(self.stack[-1], list):
            raise RefusedError("its pickle appends to something that is no list")
        self.stack[-1].extend(values)

    def _storage(self, description: object) -> Storage:
        kind, storage_type, key, _, count, *_ = cast(tuple[object, ...], description)
        name = storage_type.name if isinstance(storage_type, Global) else ""
        dtype = STORAGES.get(name.removeprefix("torch "))
        if kind != "storage" or dtype is None or not isinstance(count, int) or not isinstance(key, str):
            raise RefusedError(f"its numbers are of a kind that is not known: {name or kind}")
        return self.storages.setdefault(key, Storage(key, dtype, count))


def _call(function: object, arguments: object) -> object:
    """Returns what a call of one of the few known functions would give, without calling anything."""
    name = function.name if isinstance(function, Global) else repr(type(function).__name__)
    match arguments:
        case () if name in EMPTY_DICTS:
            return {}
        case (Tensor() as tensor, *_) if name == PARAMETER:
            return tensor
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if name in REBUILD:
            if all(isinstance(value, int) for value in (*shape, *strides)):
                return Tensor(storage, offset, shape, strides)
    raise RefusedError(
        f"its pickle asks to call {name.replace(' ', '.')[:80]}, which is not executed: a file of weights "
        "needs only tensors; "
        "do not trust this file, or save its weights as .safetensors"
    )
