"""Files that are damaged or made to harm end in one line.

Nothing of them is executed, and nothing is written.
"""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from resnet_jax.cli import main
from resnet_jax.interop import InteropError, load_pretrained
from resnet_jax.interop.weights_files import read_arrays
from tests.interop import caffe_reference, nets

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Attack:
    """Touches a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.proof), "w")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tensor(key: str, count: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """Returns the opcodes by which torch.save describes a tensor of 32-bit numbers."""
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
    )
    sides, steps = (b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides))
    hooks = b"ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(0)
        + sides
        + steps
        + b"\x89"
        + hooks
        + b"tR"
    )


def state_dict(**tensors: bytes) -> bytes:
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u."


def zipped(
    path: Path, pickled: bytes, data: bytes = bytes(24), compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/byteorder", "little")
        archive.writestr("net/data/0", data)
    return path


def legacy(path: Path, pickled: bytes, data: bytes = bytes(24)) -> Path:
    parts = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {"little_endian": True})]
    path.write_bytes(
        b"".join([*parts, pickled, pickle.dumps(["0"], 2), struct.pack("<q", len(data) // 4), data])
    )
    return path


def written(path: Path, contents: bytes | str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return path


SOUND = state_dict(a=tensor("0", 6, (2, 3), (3, 1)), b=tensor("0", 6, (3, 2), (1, 3)))
NUMBERS = np.arange(6, dtype=np.float32)
SAVED = save({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})


@pytest.mark.parametrize("write", [zipped, legacy])
def test_a_file_made_of_the_same_parts_without_harm_is_read(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    arrays = read_arrays(write(tmp_path / "net.pth", SOUND, NUMBERS.tobytes()))
    np.testing.assert_array_equal(arrays["a"], NUMBERS.reshape(2, 3))
    np.testing.assert_array_equal(arrays["b"], NUMBERS.reshape(2, 3).T)


def pickle_in_zip(folder: Path) -> Path:
    return zipped(folder / "net.pth", pickle.dumps({"conv1.weight": Attack(folder / "proof")}, 2))


def pickle_of_protocol_4(folder: Path) -> Path:
    return zipped(folder / "net.pth", pickle.dumps({"conv1.weight": Attack(folder / "proof")}, 4))


def pickle_in_old_form(folder: Path) -> Path:
    return legacy(folder / "net.pth", pickle.dumps({"conv1.weight": Attack(folder / "proof")}, 2))


def bare_pickle(folder: Path) -> Path:
    return written(folder / "net.pth", pickle.dumps(Attack(folder / "proof"), 2))


def pickle_called_safetensors(folder: Path) -> Path:
    return written(folder / "net.safetensors", pickle.dumps(Attack(folder / "proof"), 2))


def pickle_in_folder(folder: Path) -> Path:
    written(folder / "net" / "config.json", json.dumps({"model_type": "resnet"}))
    zipped(folder / "net" / "pytorch_model.bin", pickle.dumps({"conv1.weight": Attack(folder / "proof")}, 2))
    return folder / "net"


def object_in_pickle(folder: Path) -> Path:
    return zipped(folder / "net.pth", b"\x80\x02(ios\nsystem\n" + text(f"touch {folder / 'proof'}") + b"o.")


def zip_bomb(folder: Path) -> Path:
    zipped(folder / "net.pth", SOUND, bytes(50_000_000), zipfile.ZIP_DEFLATED)
    assert (folder / "net.pth").stat().st_size < 100_000
    return folder / "net.pth"


def zip_that_claims_more_than_it_has(folder: Path) -> Path:
    whole = bytearray(zipped(folder / "net.pth", SOUND).read_bytes())
    place = whole.rindex(b"PK\x01\x02")
    whole[place + 20 : place + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    return written(folder / "net.pth", bytes(whole))


def pickle_without_end(folder: Path) -> Path:
    return zipped(folder / "net.pth", b"\x80\x02" + b"(" * (17 << 20))


def tensor_of_one_number_everywhere(folder: Path) -> Path:
    return zipped(folder / "net.pth", state_dict(a=tensor("0", 6, (1 << 30, 1 << 30), (0, 0))))


def tensor_beyond_its_storage(folder: Path) -> Path:
    return zipped(folder / "net.pth", state_dict(a=tensor("0", 6, (2, 3), (300, 1))))


def names_that_are_not_one_line(folder: Path) -> Path:
    save_file({"first\nsecond\x1b[31m": np.zeros(3, np.float32)}, folder / "net.safetensors")
    return folder / "net.safetensors"


def cut_pth(folder: Path) -> Path:
    return written(folder / "net.pth", zipped(folder / "net.pth", SOUND).read_bytes()[:-40])


def cut_old_form(folder: Path) -> Path:
    return written(folder / "net.pth", legacy(folder / "net.pth", SOUND).read_bytes()[:-4])


def cut_safetensors(folder: Path) -> Path:
    return written(folder / "net.safetensors", SAVED[: len(SAVED) // 2])


def safetensors_with_an_endless_header(folder: Path) -> Path:
    return written(folder / "net.safetensors", struct.pack("<Q", 1 << 40) + SAVED[8:])


def cut_caffemodel(folder: Path) -> Path:
    layers = {"conv1": [np.zeros((64, 3, 7, 7), np.float32)]}
    return written(
        folder / "net.caffemodel",
        caffe_reference.write(folder / "net.caffemodel", layers).read_bytes()[:-1000],
    )


def caffemodel_of_another_kind(folder: Path) -> Path:
    layers = {"conv1": [np.zeros(3, np.float32)], "fc10": [np.zeros((2, 3, 4)), np.zeros(2)]}
    return caffe_reference.write(folder / "net.caffemodel", layers)


def nested_config(folder: Path) -> Path:
    return written(folder / "net" / "config.json", "[" * 200_000).parent


def config_of_a_billion_blocks(folder: Path) -> Path:
    save_file(
        {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)},
        written(folder / "net" / "model.safetensors", b""),
    )
    config = {"model_type": "resnet", "depths": [10**9, 4, 6, 3]}
    return written(folder / "net" / "config.json", json.dumps(config)).parent


def config_of_a_shallower_net(folder: Path) -> Path:
    nets.write_hugging_face(folder / "net", "34")
    config = json.loads((folder / "net" / "config.json").read_text())
    return written(folder / "net" / "config.json", json.dumps(config | {"depths": [2, 2, 2, 2]})).parent


CASES = [
    (pickle_in_zip, "asks to call"),
    (pickle_of_protocol_4, "asks to call"),
    (pickle_in_old_form, "asks to call"),
    (bare_pickle, "pickles are not executed"),
    (pickle_called_safetensors, "is no whole .safetensors file"),
    (pickle_in_folder, "asks to call"),
    (object_in_pickle, "its pickle uses INST, which no state dict needs; nothing of it was executed"),
    (zip_bomb, "its parts are compressed"),
    (zip_that_claims_more_than_it_has, "its parts claim to hold more than the file's"),
    (pickle_without_end, "more than the names of any net take"),
    (tensor_of_one_number_everywhere, "claims more numbers than its storage's 6"),
    (tensor_beyond_its_storage, "reaches beyond its storage"),
    (names_that_are_not_one_line, "has arrays such as first?second?[31m"),
    (cut_pth, "it is neither a zip file nor a pickle"),
    (cut_old_form, "it is not whole: storage 0 has 20 of its 24 bytes"),
    (cut_safetensors, "is no whole .safetensors file"),
    (safetensors_with_an_endless_header, "is no whole .safetensors file"),
    (cut_caffemodel, "is no whole .caffemodel"),
    (caffemodel_of_another_kind, "has arrays of other dimensions than the authors' nets"),
    (nested_config, "cannot be read as JSON"),
    (config_of_a_billion_blocks, "too few for (1000000000, 4, 6, 3) blocks per stage"),
    (config_of_a_shallower_net, "resnet.encoder.stages.0.layers.2.layer.0.convolution.weight is left over"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_a_hostile_file_is_refused_in_one_line(
    make: Callable[[Path], Path], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make(tmp_path)
    mean = ["--mean", "1,2,3"] if source.suffix == ".caffemodel" else []
    assert main(["import", str(source), "--to", str(tmp_path / "run"), *mean]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == [source]


SMALL = {
    "conv1": [np.ones((2, 3, 1, 1))],
    "bn_conv1": [np.ones(2), np.ones(2), np.ones(1)],
    "fc5": [np.ones((5, 2)), np.ones(5)],
}
WHOLE = {
    "zip.pth": lambda path: zipped(path, SOUND).read_bytes(),
    "old.pth": lambda path: legacy(path, SOUND).read_bytes(),
    "net.safetensors": lambda _: SAVED,
    "net.caffemodel": lambda path: caffe_reference.write(path, SMALL).read_bytes(),
}


@pytest.mark.parametrize("name", WHOLE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_and_nothing_else(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    whole = bytearray(WHOLE[name](tmp_path / name))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, min(len(whole), 700) - 1), st.integers(0, 255)), max_size=4)
    ):
        whole[place] = value
    cut = data.draw(st.integers(0, len(whole)) | st.just(len(whole)))
    (tmp_path / name).write_bytes(whole[:cut])
    with pytest.raises(InteropError):  # None of them is a whole net, so each ends with what is wrong with it.
        load_pretrained(tmp_path / name, mean="1,2,3" if name.endswith("caffemodel") else None)
