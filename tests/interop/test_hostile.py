"""Files that are damaged or made to harm end in one line; nothing of them is executed, and nothing is written."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from resnet_jax.cli import main


class Attack:
    """Touches a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.proof), "w")


def zipped(path: Path, pickled: bytes, *, compression: int = zipfile.ZIP_STORED, data: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/data/0", data)


def pickle_in_zip(folder: Path) -> Path:
    zipped(folder / "net.pth", pickle.dumps({"conv1.weight": Attack(folder / "proof")}, 2))
    return folder / "net.pth"


def bare_pickle(folder: Path) -> Path:
    (folder / "net.pth").write_bytes(pickle.dumps(Attack(folder / "proof"), 2))
    return folder / "net.pth"


def zip_bomb(folder: Path) -> Path:
    zipped(folder / "net.pth", pickle.dumps({}, 2), compression=zipfile.ZIP_DEFLATED, data=bytes(50_000_000))
    assert (folder / "net.pth").stat().st_size < 100_000
    return folder / "net.pth"


def cut_safetensors(folder: Path) -> Path:
    save_file({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, folder / "net.safetensors")
    whole = (folder / "net.safetensors").read_bytes()
    (folder / "net.safetensors").write_bytes(whole[: len(whole) // 2])
    return folder / "net.safetensors"


CASES = [
    (pickle_in_zip, "asks to call"),
    (bare_pickle, "is not executed"),
    (zip_bomb, "its parts are compressed"),
    (cut_safetensors, "is no whole .safetensors file"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_a_hostile_file_is_refused_in_one_line(
    make: Callable[[Path], Path], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make(tmp_path)
    assert main(["import", str(file), "--to", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == [file]
