"""What is exported says what the net says, elsewhere.

In PyTorch, and in fresh processes that have no package of ours.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from resnet_jax import load_checkpoint
from resnet_jax.cli import main
from resnet_jax.interop import InteropError, export, import_weights
from resnet_jax.interop.export_metadata import names_of
from resnet_jax.training.checkpoints import read_checkpoint
from tests.interop import nets, workdirs
from tests.interop.test_import import assert_close

SMALL: dict[str, tuple[dict[str, Any], int, np.ndarray]] = {
    "resnet18, scaled input": (
        {"name": "resnet18", "width": 8, "epsilon": 1e-2, "input_scale": [0.017, 0.018, 0.019]},
        64,
        workdirs.RGB_MEAN,
    ),
    "resnet18 A": ({"name": "resnet18", "width": 8, "shortcut": "A"}, 33, workdirs.RGB_MEAN),
    "bottlenecks, 1x1": (
        {"name": "resnet14", "stage_depths": [1, 1, 1, 1], "width": 8, "pool": "caffe"},
        64,
        workdirs.RGB_MEAN,
    ),
    "bottlenecks, 3x3, C": (
        {"name": "resnet17", "stage_depths": [2, 1, 1, 1], "width": 8, "stride_on": "3x3", "shortcut": "C"},
        65,
        workdirs.RGB_MEAN,
    ),
    "bottlenecks, A": (
        {"name": "resnet14", "stage_depths": [1, 1, 1, 1], "width": 8, "shortcut": "A"},
        64,
        workdirs.pixel_mean(64),
    ),
    "plain18": ({"name": "plain18", "width": 8}, 64, workdirs.RGB_MEAN),
    "cifar_resnet8": (
        {"name": "cifar_resnet8", "group_size": 4, "variance": "biased"},
        17,
        workdirs.pixel_mean(17),
    ),
    "cifar_resnet14 B": ({"name": "cifar_resnet14", "shortcut": "B"}, 32, workdirs.RGB_MEAN),
    "cifar_plain8": ({"name": "cifar_plain8"}, 16, workdirs.RGB_MEAN),
    "vgg8": (
        {"name": "vgg8", "stage_depths": [1, 1, 1, 1, 1], "width": 4, "hidden": 16},
        64,
        workdirs.RGB_MEAN,
    ),
}
CLASSES = 7

CALL_STABLEHLO = """
import sys
sys.modules["resnet_jax"] = None  # An import of it would fail.
import numpy as np
import jax
folder = sys.argv[1]
for path in sys.argv[2:]:
    program = jax.export.deserialize(bytearray(open(path, "rb").read()))
    images = np.load(path + ".npy")
    np.savez(path + ".npz", one=program.call(images[:1]), seven=program.call(images))
"""
CALL_ONNX = """
import sys
sys.modules["resnet_jax"] = sys.modules["jax"] = None
import numpy as np
import onnxruntime
for path in sys.argv[2:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = np.load(path + ".npy")
    one, seven = (session.run(["logits"], {"images": part})[0] for part in (images[:1], images))
    np.savez(path + ".npz", one=one, seven=seven)
"""


def pictures(side: int, count: int = 7) -> np.ndarray:
    return nets.pixels(side, count)


def our_logits(workdir: Path, images: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Returns what the checkpoint's net gives, image by image."""
    model, variables = load_checkpoint(str(workdir))
    apply = jax.jit(model.apply)
    return np.concatenate([apply(variables, image[None].astype(np.float32) - mean) for image in images])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    for name, (model, side, mean) in SMALL.items():
        workdirs.write(folder / name, {**model, "num_classes": CLASSES}, side=side, mean=mean)
    return folder


def called(small: Path, program: str, suffix: str) -> dict[str, Any]:
    """Returns the logits of all small nets, exported, and called in one fresh process."""
    paths = {name: small / f"{name}.{suffix}" for name in SMALL}
    for name, path in paths.items():
        export(small / name, path)
        np.save(f"{path}.npy", pictures(SMALL[name][1]))
    command = [sys.executable, "-c", program, str(small), *map(str, paths.values())]
    subprocess.run(command, check=True, cwd=small, timeout=300)
    return {name: np.load(f"{path}.npz") for name, path in paths.items()}


@pytest.fixture(scope="module")
def from_stablehlo(small: Path) -> dict[str, Any]:
    return called(small, CALL_STABLEHLO, "stablehlo")


@pytest.fixture(scope="module")
def from_onnx(small: Path) -> dict[str, Any]:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return called(small, CALL_ONNX, "onnx")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("programs", ["from_stablehlo", "from_onnx"])
def test_programs_give_the_same_logits_where_this_package_is_not(name, programs, small, request) -> None:
    found = request.getfixturevalue(programs)[name]
    _, side, mean = SMALL[name]
    expected = our_logits(small / name, pictures(side), mean)
    assert np.ptp(expected, axis=0).min() > 1e-3 * np.abs(expected).max()
    assert_close(found["one"], expected[:1])
    assert_close(found["seven"], expected)
    assert found["seven"].dtype == np.float32


def test_stablehlo_is_for_three_platforms_and_any_batch(small: Path, tmp_path: Path) -> None:
    export(small / "cifar_resnet8", tmp_path / "net.stablehlo")
    program = jax.export.deserialize(bytearray((tmp_path / "net.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [str(size) for size in program.in_avals[0].shape] == ["batch", "17", "17", "3"]
    assert program.in_avals[0].dtype == np.uint8


def test_onnx_is_checked_and_its_batch_is_free(small: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    export(small / "bottlenecks, 1x1", tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, [size.dim_value for size in shape[1:]]) == ("batch", [64, 64, 3])
    kinds = {node.op_type for node in model.graph.node}
    assert {"Conv", "BatchNormalization", "MaxPool", "Gemm"} <= kinds
    told = json.loads({entry.key: entry.value for entry in model.metadata_props}["resnet_jax"])
    assert told == json.loads((tmp_path / "net.onnx.json").read_text())


def test_the_record_says_what_the_net_expects_and_the_names_of_its_classes(
    small: Path, tmp_path: Path
) -> None:
    export(small / "resnet18, scaled input", tmp_path / "net.safetensors")
    export(small / "resnet18, scaled input", tmp_path / "net.stablehlo")
    record = json.loads((tmp_path / "net.safetensors.json").read_text())
    assert record["class_names"] == [f"class {label}" for label in range(CLASSES)]
    expected = {"channels": "RGB", "pixels": [0, 255], "resize_shorter_side": 64, "centre_crop": 64}
    assert record["preprocessing"] == {
        **expected,
        "mean": [120.0, 110.0, 100.0],
        "scale": [0.017, 0.018, 0.019],
    }
    with safe_open(tmp_path / "net.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["resnet_jax"]) == record
    program = json.loads((tmp_path / "net.stablehlo.json").read_text())
    assert {**record, "program": program["program"]} == program
    assert program["program"]["input"] == {"name": "images", "dtype": "uint8", "shape": ["batch", 64, 64, 3]}
    assert program["program"]["applies"] == ["mean", "scale"]


@pytest.mark.parametrize("name", ["resnet18, scaled input", "bottlenecks, 3x3, C", "cifar_resnet8", "vgg8"])
def test_export_import_export_gives_the_same_bytes(name: str, small: Path, tmp_path: Path) -> None:
    export(small / name, tmp_path / "first.safetensors")
    import_weights(tmp_path / "first.safetensors", tmp_path / "run")
    export(tmp_path / "run", tmp_path / "second.safetensors")
    for suffix in ("safetensors", "safetensors.json"):
        assert (tmp_path / f"first.{suffix}").read_bytes() == (tmp_path / f"second.{suffix}").read_bytes()
    one, other = (read_checkpoint(workdir).arrays for workdir in (small / name, tmp_path / "run"))
    assert one.keys() == other.keys()
    assert all(array.tobytes() == other[key].tobytes() for key, array in one.items() if key != "step")


def test_a_file_that_lost_its_record_has_it_inside(small: Path, tmp_path: Path) -> None:
    export(small / "cifar_resnet8", tmp_path / "net.safetensors")
    (tmp_path / "net.safetensors.json").unlink()
    import_weights(tmp_path / "net.safetensors", tmp_path / "run")
    one, other = (read_checkpoint(workdir) for workdir in (small / "cifar_resnet8", tmp_path / "run"))
    assert one.model == other.model
    assert all(
        array.tobytes() == other.arrays[key].tobytes() for key, array in one.arrays.items() if key != "step"
    )


TORCHVISION_CASES = [
    "18",
    "34",
    *(f"{depth}_{stride}" for depth in (50, 101, 152) for stride in ("1x1", "3x3")),
]


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case == "18" else pytest.mark.slow) for case in TORCHVISION_CASES]
)
def test_torch_loads_the_file_strictly_and_gives_the_same_logits(case: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_tensors

    from tests.interop.test_against_torch import torch_input, torch_net

    depth, _, stride_on = case.partition("_")
    arrays = nets.weights(int(depth))
    save_file(arrays, tmp_path / "net.safetensors")
    imported = import_weights(tmp_path / "net.safetensors", tmp_path / "run", stride_on=stride_on or None)
    exported = export(tmp_path / "run", tmp_path / "out.safetensors")
    assert any("stride on the 3x3" in note for note in exported.notes) == (stride_on == "1x1")
    net = torch_net(case)
    net.load_state_dict(load_tensors(tmp_path / "out.safetensors"), strict=True)
    images = pictures(64, 2)
    with torch.no_grad():
        theirs = net(torch_input(images)).numpy()
    ours = jax.jit(imported.model.apply)(
        imported.variables, images.astype(np.float32) - np.float32(255 * nets.MEAN)
    )
    assert_close(np.asarray(ours), theirs)
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == arrays.keys()
    assert all(found[name].tobytes() == array.tobytes() for name, array in arrays.items())
    import_weights(tmp_path / "out.safetensors", tmp_path / "again")
    export(tmp_path / "again", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["stablehlo", "onnx"])
def test_programs_of_50_layers_give_the_same_logits(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    save_file(nets.weights(50), tmp_path / "net.safetensors")
    imported = import_weights(tmp_path / "net.safetensors", tmp_path / "run")
    path = tmp_path / f"net.{suffix}"
    export(tmp_path / "run", path)
    np.save(f"{path}.npy", pictures(224))
    program = {"stablehlo": CALL_STABLEHLO, "onnx": CALL_ONNX}[suffix]
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(path)], check=True, cwd=tmp_path, timeout=600
    )
    images = pictures(224).astype(np.float32) - np.float32(255 * nets.MEAN)
    expected = np.asarray(jax.jit(imported.model.apply)(imported.variables, images))
    found = np.load(f"{path}.npz")
    assert_close(found["one"], expected[:1])
    assert_close(found["seven"], expected)


def test_torch_loads_a_vgg_net_strictly(small: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_tensors

    sizes = [(3, 4), (4, 8), (8, 16), (16, 32), (32, 32)]
    net = torch.nn.Module()
    maps = [
        (torch.nn.Conv2d(*size, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2, 2)) for size in sizes
    ]
    net.features = torch.nn.Sequential(*(layer for stage in maps for layer in stage))
    hidden = [
        (torch.nn.Linear(128, 16), torch.nn.ReLU(), torch.nn.Dropout()),
        (torch.nn.Linear(16, 16), torch.nn.ReLU()),
    ]
    layers = [layer for part in hidden for layer in part]
    net.classifier = torch.nn.Sequential(*layers, torch.nn.Dropout(), torch.nn.Linear(16, CLASSES))
    net.eval()
    export(small / "vgg8", tmp_path / "net.safetensors")
    net.load_state_dict(load_tensors(tmp_path / "net.safetensors"), strict=True)
    images = pictures(64, 2)
    pixels = torch.from_numpy((images.astype(np.float32) - workdirs.RGB_MEAN).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        theirs = net.classifier(torch.flatten(net.features(pixels), 1)).numpy()
    assert_close(our_logits(small / "vgg8", images, workdirs.RGB_MEAN), theirs)


def test_vgg_16_has_the_numbers_of_torchvisions_modules() -> None:
    name_of = names_of({"name": "vgg16"})
    layers = [
        f"stage{stage}_conv{index}"
        for stage, depth in enumerate((2, 2, 3, 3, 3), 1)
        for index in range(1, depth + 1)
    ]
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert [name_of(("params", layer, "kernel")) for layer in layers] == [
        f"features.{number}.weight" for number in numbers
    ]
    heads = [name_of(("params", layer, "bias")) for layer in ("hidden1", "hidden2", "head")]
    assert heads == [f"classifier.{number}.bias" for number in (0, 3, 6)]


NOTES = [
    ("cifar_resnet8", "torchvision has no cifar_resnet8"),
    ("plain18", "torchvision has no plain18"),
    ("resnet18 A", "torchvision has no resnet18 of this shape"),
]


@pytest.mark.parametrize(("name", "note"), NOTES)
def test_what_torchvision_does_not_have_is_said(
    name: str, note: str, small: Path, tmp_path: Path, capsys
) -> None:  # type: ignore[no-untyped-def]
    assert main(["export", "--workdir", str(small / name), "--to", str(tmp_path / "net.safetensors")]) == 0
    assert note in capsys.readouterr().out


def test_the_step_and_the_newest_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdirs.write(tmp_path / "run", {"name": "cifar_resnet8", "num_classes": 3}, side=8, steps=(4, 9))
    for arguments, step in ((["--step", "4"], 4), ([], 9)):
        target = tmp_path / f"net{step}.safetensors"
        assert (
            main(["export", "--workdir", str(tmp_path / "run"), "--to", str(target), "--json", *arguments])
            == 0
        )
        printed = json.loads(capsys.readouterr().out)
        assert (printed["step"], printed["bytes"], printed["model"]) == (
            step,
            target.stat().st_size,
            "cifar_resnet8",
        )
        kernel = load_checkpoint(str(tmp_path / "run"), step)[1]["params"]["head"]["kernel"]
        np.testing.assert_array_equal(load_file(target)["fc.weight"], kernel.T)


MISTAKES = [
    (
        ["--to", "net.safetensors", "--format", "tflite"],
        "unknown format 'tflite'; allowed are safetensors, stablehlo, onnx",
    ),
    (["--to", "net.onx"], "has the suffix '.onx'; allowed are .safetensors, .stablehlo, .onnx"),
    (["--to", "net.bin", "--format", "onnx"], "has the suffix '.bin'; for format onnx it is .onnx"),
    (["--to", "net.onnx", "--format", "stablehlo"], "name it net.stablehlo"),
    (["--to", "gs://bucket/net.onnx"], "is a URL; export to a file of this machine"),
    (["--to", "taken.onnx"], "taken.onnx exists already; choose another --to, or give --overwrite"),
    (["--to", "folder.onnx", "--overwrite"], "folder.onnx is a folder"),
    (["--to", "taken.onnx/net.onnx"], "cannot be made, since taken.onnx is no folder"),
    (["--to", "net.onnx", "--workdir", "nowhere"], "nowhere holds no checkpoint"),
    (["--to", "net.onnx", "--step", "5"], "has no checkpoint of step 5; it has 4"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments, message, small, tmp_path, monkeypatch, capsys
) -> None:  # type: ignore[no-untyped-def]
    if "taken.onnx/net.onnx" in arguments:
        pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.onnx").write_text("years of work")
    (tmp_path / "folder.onnx").mkdir()
    assert main(["export", "--workdir", str(small / "cifar_resnet8"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder.onnx", "taken.onnx"]
    assert (tmp_path / "taken.onnx").read_text() == "years of work"


def test_overwriting_replaces_the_file_and_its_record(small: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "net.safetensors", tmp_path / "net.safetensors.json"):
        path.write_text("old")
        with pytest.raises(InteropError, match="exists already"):
            export(small / "cifar_resnet8", tmp_path / "net.safetensors")
    export(small / "cifar_resnet8", tmp_path / "net.safetensors", overwrite=True)
    assert load_file(tmp_path / "net.safetensors")
    assert json.loads((tmp_path / "net.safetensors.json").read_text())["model"]["name"] == "cifar_resnet8"


def test_a_disk_that_fills_leaves_what_was_there(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that may not grow beyond 20 kB stand for the disk: the record fits, the weights do not."""
    workdir, target = small / "cifar_resnet14 B", tmp_path / "net.safetensors"
    target.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        code = main(["export", "--workdir", str(workdir), "--to", str(target), "--overwrite"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "File too large" in error
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    assert target.read_text() == "old"


def test_without_onnx_the_command_that_installs_it_is_given(
    small: Path, tmp_path: Path, monkeypatch, capsys
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert (
        main(["export", "--workdir", str(small / "cifar_resnet8"), "--to", str(tmp_path / "net.onnx")]) == 2
    )
    assert "pip install 'resnet-jax[onnx]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
