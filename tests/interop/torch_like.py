"""Writes the files that torch.save writes, without PyTorch: tensors, and objects of modules not here."""

import dataclasses
import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
}


@dataclasses.dataclass(frozen=True)
class Named:
    """A function or class that is pickled by its name alone."""

    name: str

    def __call__(self) -> None:
        raise AssertionError


@dataclasses.dataclass
class Made:
    """An object that unpickling would create by calling `name` with the arguments and setting its state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclasses.dataclass
class Storage:
    kind: str
    key: str
    count: int


class TorchPickler(pickle._Pickler):  # The pickler in Python, whose methods may be overridden.
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 2)
        self.arrays: list[np.ndarray] = []

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:  # type: ignore[override]
        if isinstance(obj, Named):
            module, _, name = obj.name.rpartition(".")
            self.write(f"c{module}\n{name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            return ("storage", Named(f"torch.{obj.kind}"), obj.key, "cpu", obj.count)
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            storage = Storage(STORAGES[obj.dtype.name], str(len(self.arrays)), obj.size)
            self.arrays.append(np.array(obj, order="C"))
            strides = tuple(step // obj.itemsize for step in self.arrays[-1].strides)
            arguments = (storage, 0, obj.shape, strides, False, OrderedDict())
            return Named("torch._utils._rebuild_tensor_v2"), arguments
        if isinstance(obj, Made):
            return Named(obj.name), obj.arguments, obj.state
        return NotImplemented


def save(obj: Any, path: Path) -> Path:
    """Writes an object in the zip format of torch.save."""
    pickled = io.BytesIO()
    pickler = TorchPickler(pickled)
    pickler.dump(obj)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", "little")
        for number, array in enumerate(pickler.arrays):
            archive.writestr(f"archive/data/{number}", array.tobytes())
    return path
