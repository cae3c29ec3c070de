"""Interprets the pickle of a state dict; nothing that it names is looked up or executed.

The opcodes are decoded by pickletools and interpreted by a machine of its own, which can build dicts, lists,
tuples, strings and numbers, and takes the functions that rebuild a tensor as descriptions of one. Whatever
else a pickle would create (the arguments of a training script, an optimizer, a whole model) becomes an
`Opaque`, which holds the name alone. Only what lies in the state dict is judged, by who reads it.
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
REBUILD_DTYPE = "torch._utils _rebuild_tensor_v3"  # Of dtypes without a storage type: its seventh argument.
PARAMETER = "torch._utils _rebuild_parameter"
EMPTY_DICTS = {"collections OrderedDict", "collections defaultdict", "builtins dict", "__builtin__ dict"}

# Opcodes that push their argument.
PLAIN = (
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2"),
    *("LONG1", "LONG4", "BINFLOAT", "SHORT_BINSTRING", "BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
    *("BINBYTES8", "BYTEARRAY8", "INT", "LONG", "FLOAT", "UNICODE", "STRING"),
)
_PUTS, _GETS = ("BINPUT", "LONG_BINPUT", "PUT"), ("BINGET", "LONG_BINGET", "GET")


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


@dataclasses.dataclass(frozen=True)
class Opaque:
    """Something that unpickling would create by running code; it was not created.

    Attributes:
        name: What would create it: "torchvision.models.resnet ResNet".
    """

    name: str


class RefusedError(Exception):
    """Why a file is refused; it never leaves the reader of the file."""


def interpret(pickled: bytes, start: int = 0) -> tuple[object, dict[str, Storage], int]:
    """Returns what a pickle builds, and where it ends: `Tensor` for tensors, `Opaque` for what is not known.

    The second value holds the storages by key.

    Args:
        pickled: Holds the pickle.
        start: Position of its first byte.

    Raises:
        RefusedError: It uses an opcode that no file of torch.save needs, or is damaged.
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
            "EMPTY_SET": lambda _: push(Opaque("builtins set")),
            "FROZENSET": lambda _: push(self._opaque_of_mark("builtins frozenset")),
            "DICT": lambda _: push(self._dict_of_mark()),
            "LIST": lambda _: push(self._since_mark()),
            "POP": lambda _: self._discard(),
            "POP_MARK": lambda _: self._discard_mark(),
            "DUP": lambda _: push(self.stack[-1]),
            "NEWOBJ": lambda _: push(_created(pop(2)[0])),
            "NEWOBJ_EX": lambda _: push(_created(pop(3)[0])),
            "ADDITEMS": lambda _: self._discard_mark(),
            "TUPLE1": lambda _: push(tuple(pop(1))),
            "TUPLE2": lambda _: push(tuple(pop(2))),
            "TUPLE3": lambda _: push(tuple(pop(3))),
            **dict.fromkeys(
                ("BINPUT", "LONG_BINPUT", "PUT"), lambda key: memo.__setitem__(key, self.stack[-1])
            ),
            **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), lambda key: push(memo[key])),
            "MEMOIZE": lambda _: memo.__setitem__(len(memo), self.stack[-1]),
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "TUPLE": lambda _: push(tuple(self._since_mark())),
            "GLOBAL": lambda name: push(Global(str(name))),
            "STACK_GLOBAL": lambda _: push(Global(" ".join(map(str, pop(2))))),
            "BINPERSID": lambda _: push(self._storage(*pop(1))),
            "REDUCE": lambda _: push(_call(*pop(2))),
            "BUILD": lambda _: pop(1),  # Attributes: of an OrderedDict, versions of modules.
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

    def _discard(self) -> None:
        self._pop(1)

    def _discard_mark(self) -> None:
        self._since_mark()

    def _opaque_of_mark(self, name: str) -> Opaque:
        self._since_mark()
        return Opaque(name)

    def _dict_of_mark(self) -> dict[object, object]:
        flat = self._since_mark()
        return {key: value for key, value in zip(flat[::2], flat[1::2], strict=True) if _is_key(key)}

    def _set(self, flat: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict):
            raise RefusedError("its pickle sets items of something that is no dict")
        target.update({key: value for key, value in zip(flat[::2], flat[1::2], strict=True) if _is_key(key)})

    def _append(self, values: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, list):
            raise RefusedError("its pickle appends to something that is no list")
        target.extend(values)

    def _storage(self, description: object) -> Storage | Opaque:
        kind, storage_type, key, _, count, *_ = cast(tuple[object, ...], description)
        name = storage_type.name if isinstance(storage_type, Global) else ""
        dtype = STORAGES.get(name.removeprefix("torch "))
        if kind != "storage" or not isinstance(count, int) or not isinstance(key, str):
            raise RefusedError(f"its numbers are of a kind that is not known: {name or kind}")
        if dtype is None:
            return Opaque(name)
        return self.storages.setdefault(key, Storage(key, dtype, count))


def _is_key(key: object) -> bool:
    return isinstance(key, str | int | float | bytes)


def _created(function: object) -> Opaque:
    return Opaque(function.name if isinstance(function, Global) else type(function).__name__)


def _call(function: object, arguments: object) -> object:
    """Returns what a call of one of the few known functions would give, without calling anything."""
    name = function.name if isinstance(function, Global) else type(function).__name__
    match arguments:
        case tuple() if name in EMPTY_DICTS:
            return {}
        case (Tensor() as tensor, *_) if name == PARAMETER:
            return tensor
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if name in REBUILD:
            if all(isinstance(value, int) for value in (*shape, *strides)):
                return Tensor(storage, offset, shape, strides)
        case (Opaque() as storage, *_) if name in REBUILD:
            return storage
        case (Storage() | Opaque(), *_) if (
            name == REBUILD_DTYPE and len(cast(tuple[object, ...], arguments)) > 6
        ):
            return _created(cast(tuple[object, ...], arguments)[6])
    return Opaque(name)
