"""Files of weights as people have them: wrapped, in training checkpoints, without a head, of CIFAR nets."""

import json
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from resnet_jax.cli import main
from resnet_jax.interop import InteropError, import_weights, load_pretrained
from resnet_jax.interop.foreign_weights import read_class_names
from resnet_jax.interop.state_names import without_wrappers
from resnet_jax.models.shortcuts import SHORTCUTS
from tests.interop import nets, torch_like
from tests.interop.torch_like import Made
from tests.models.parity import draw

CLASSES = 5


def cifar(depth: int = 8, *, head: str = "linear", projected: str = "") -> dict[str, np.ndarray]:
    """Returns the state dict of a CIFAR net as akamaster's repository names it."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        shapes[f"{conv}.weight"] = shape
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{leaf}"] = shape[:1]

    layer("conv1", "bn1", (16, 3, 3, 3))
    into = 16
    for stage, out in enumerate((16, 32, 64), start=1):
        for block in range((depth - 2) // 6):
            at = f"layer{stage}.{block}"
            layer(f"{at}.conv1", f"{at}.bn1", (out, into, 3, 3))
            layer(f"{at}.conv2", f"{at}.bn2", (out, out, 3, 3))
            if projected and out != into:
                layer(f"{at}.{projected}.0", f"{at}.{projected}.1", (out, into, 1, 1))
            into = out
    if head:
        shapes |= {f"{head}.weight": (CLASSES, 64), f"{head}.bias": (CLASSES,)}
    return {name: draw(name, shape).astype(np.float32) for name, shape in shapes.items()}


def flat(variables: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {jax.tree_util.keystr(path): np.asarray(array) for path, array in leaves}


def assert_same_network(one: Path, other: Path) -> None:
    first, second = load_pretrained(one)[1], load_pretrained(other)[1]
    ours, theirs = flat(first), flat(second)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torch_like.save(OrderedDict(cifar()), tmp_path_factory.mktemp("plain") / "net.pth")


PREFIXES = ["module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.", "module._orig_mod.model."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_prefix_of_all_names_is_removed_and_said(
    plain: Path, tmp_path: Path, prefix: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {f"{prefix}{name}": array for name, array in cifar().items()}
    file = tmp_path / f"net{suffix}"
    save_file(arrays, file) if suffix == ".safetensors" else torch_like.save(arrays, file)
    assert_same_network(file, plain)
    assert main(["import", str(file), "--to", str(tmp_path / "run")]) == 0
    assert f"the prefix {prefix!r} of all names is removed" in capsys.readouterr().out


def test_a_prefix_in_a_folder_of_hugging_face_is_removed(tmp_path: Path) -> None:
    nets.write_hugging_face(tmp_path / "plain", "18")
    nets.write_hugging_face(tmp_path / "wrapped", "18")
    from safetensors.numpy import load_file

    file = tmp_path / "wrapped" / "model.safetensors"
    save_file({f"model.{name}": array for name, array in load_file(file).items()}, file)
    assert_same_network(tmp_path / "plain", tmp_path / "wrapped")


def test_names_that_share_no_wrapper_stay() -> None:
    arrays = {"features.0.weight": np.zeros(1), "features.2.weight": np.zeros(1)}
    assert without_wrappers(arrays)[0].keys() == arrays.keys()
    single = {"fc.weight": np.zeros(1), "fc.bias": np.zeros(1)}
    assert without_wrappers(single)[0].keys() == single.keys()


def attack() -> Made:
    return Made("posix.system", ("touch proof",))


def wrapped(**other: Any) -> Callable[[dict[str, np.ndarray]], Any]:
    return lambda arrays: {"state_dict": arrays, **other}


ARGS = Made("argparse.Namespace", (), {"lr": 0.1, "device": Made("torch.device", ("cuda",))})
SCALAR = Made("numpy.core.multiarray.scalar", (Made("numpy.dtype", ("f8", False, True)), b"\0" * 8))
OPTIMIZER = {"state": {0: {"momentum_buffer": np.ones(3, np.float32)}}, "param_groups": [{"lr": SCALAR}]}
CHECKPOINTS: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {
    "torchvision's references": lambda arrays: {
        "model": OrderedDict(arrays),
        "optimizer": OPTIMIZER,
        "lr_scheduler": {"_step_count": 3, "milestones": Made("collections.Counter", ({30: 1},))},
        "epoch": 7,
        "args": ARGS,
    },
    "timm's": wrapped(epoch=3, arch="resnet8", args=ARGS, metric=SCALAR, optimizer=OPTIMIZER, version=2),
    "a defaultdict and a set beside": wrapped(
        history=Made("collections.defaultdict", (Made("builtins.list"),)), seen={1, 2}, frozen=frozenset("a")
    ),
    "an attack beside": wrapped(args=attack()),
    "the best accuracy as a tensor": wrapped(best_acc1=np.float32([76.1])),
    "net": lambda arrays: {"net": {f"module.{name}": array for name, array in arrays.items()}, "acc": 93.0},
    "parameters": lambda arrays: {
        name: Made("torch._utils._rebuild_parameter", (array, True, OrderedDict()))
        for name, array in arrays.items()
    },
    "averaged by torch": lambda arrays: {
        "n_averaged": np.array(5, np.int64),
        **{f"module.{name}": array for name, array in arrays.items()},
    },
    "ema beside raw weights": lambda arrays: {
        "state_dict": {name: array + np.float32(1) for name, array in arrays.items()},
        "state_dict_ema": arrays,
    },
    "lightning": lambda arrays: {
        "state_dict": {f"model.{name}": array for name, array in arrays.items()},
        "pytorch-lightning_version": "2.1",
        "callbacks": {"ModelCheckpoint": Made("pathlib.PosixPath", ("/", "runs"))},
    },
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_training_checkpoints_are_read_and_nothing_is_executed(
    plain: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = torch_like.save(CHECKPOINTS[kind](cifar()), tmp_path / "checkpoint.pth.tar")
    assert_same_network(file, plain)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth.tar"]


@pytest.mark.parametrize("suffix", ["", ".th", ".ckpt", ".pth.tar", ".bin", ".safetensors2", ".model"])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_the_contents_tell_the_format(plain: Path, tmp_path: Path, suffix: str, kind: str) -> None:
    file = tmp_path / f"weights{suffix}"
    if kind == "torch":
        file.write_bytes(plain.read_bytes())
    else:
        save_file(cifar(), file)
    assert_same_network(file, plain)


REFUSED: list[tuple[Any, str]] = [
    (
        Made("torchvision.models.resnet.ResNet", (), {"x": 1}),
        "it holds a torchvision.models.resnet.ResNet, pickled",
    ),
    ({"model": Made("mine.Net")}, "it holds a mine.Net, pickled with its code, which is not executed"),
    ({"state_dict": {"a": attack()}}, "its state dict holds a (posix.system); its pickle asks to call that"),
    (attack(), "run torch.save(model.state_dict(), 'weights.pth') and import that"),
    ([np.zeros(3, np.float32)], "it holds a list, not a state dict"),
    ({}, "it is not a state dict: it is empty"),
    ({"epoch": 3, "lr": 0.1}, "it is not a state dict: epoch, lr"),
]


@pytest.mark.parametrize(("obj", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_is_no_state_dict_is_said_with_the_way_out(
    obj: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = torch_like.save(obj, tmp_path / "net.pt")
    assert main(["import", str(file), "--to", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


OTHER_FILES = [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
    (b"<!DOCTYPE html><html>", "a web page"),
    (b"\x89HDF\r\n\x1a\n" + b"0" * 20, "an HDF5 file"),
    (b"\x1f\x8b\x08" + b"0" * 20, "compressed by gzip"),
    (b"", "is empty"),
]


@pytest.mark.parametrize(("content", "message"), OTHER_FILES, ids=[message for _, message in OTHER_FILES])
def test_files_of_another_kind_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(InteropError, match=message):
        load_pretrained(tmp_path / "net.pth")


def heads(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    weight, bias = arrays.pop("linear.weight"), arrays.pop("linear.bias")
    return {
        "none": {},
        "fc": {"fc.weight": weight, "fc.bias": bias},
        "dropout": {"fc.1.weight": weight, "fc.1.bias": bias},
        "classifier": {"classifier.weight": weight, "classifier.bias": bias},
        "without bias": {"head.weight": weight},
        "two layers": {
            "fc.0.weight": np.zeros((7, 64), np.float32),
            "fc.0.bias": np.zeros(7, np.float32),
            "fc.2.weight": np.zeros((CLASSES, 7), np.float32),
            "fc.2.bias": np.zeros(CLASSES, np.float32),
        },
    }


@pytest.mark.parametrize("kind", ["fc", "dropout", "classifier", "without bias"])
def test_a_last_layer_is_found_whatever_it_is_called(kind: str, tmp_path: Path) -> None:
    body = cifar()
    weight = body["linear.weight"]
    head = heads(body)[kind]
    save_file(body | head, tmp_path / "net.safetensors")
    params = load_pretrained(tmp_path / "net.safetensors")[1]["params"]["head"]
    np.testing.assert_array_equal(params["kernel"], weight.T)
    if kind == "without bias":
        np.testing.assert_array_equal(params["bias"], np.zeros(CLASSES))


@pytest.mark.parametrize(
    ("kind", "message"), [("none", "has no last layer"), ("two layers", "has the last layers fc.0.bias")]
)
def test_a_backbone_gets_a_fresh_head_where_asked(
    kind: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = cifar()
    head = heads(body)[kind]
    save_file(body | head, tmp_path / "net.safetensors")
    command = ["import", str(tmp_path / "net.safetensors"), "--to", str(tmp_path / "run")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "give --classes N for a fresh one" in error
    assert main([*command, "--classes", "7"]) == 0
    assert "cifar_resnet8, 7 classes" in capsys.readouterr().out
    _, variables, _ = load_pretrained(tmp_path / "net.safetensors", num_classes=7)
    assert variables["params"]["head"]["kernel"].shape == (64, 7)
    np.testing.assert_array_equal(
        variables["params"]["stem"]["conv"]["kernel"], body["conv1.weight"].transpose(2, 3, 1, 0)
    )


def test_a_head_that_is_thrown_away_may_be_of_any_kind(tmp_path: Path) -> None:
    arrays = cifar() | {"linear.weight": np.full((CLASSES, 64), np.nan, np.float32)}
    save_file(arrays, tmp_path / "net.safetensors")
    with pytest.raises(InteropError, match="not finite"):
        load_pretrained(tmp_path / "net.safetensors")
    assert load_pretrained(tmp_path / "net.safetensors", num_classes=3)[1]["params"]["head"][
        "bias"
    ].shape == (3,)


def forward(arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Computes akamaster's network in NumPy, float64: images [n, 3, h, w], logits [n, classes]."""

    def conv(name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
        kernel = arrays[f"{name}.weight"].astype(np.float64)
        size, pad = kernel.shape[-1], kernel.shape[-1] // 2
        padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))
        return np.einsum("nchwij,ocij->nohw", windows[:, :, ::stride, ::stride], kernel)

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        weight, bias, mean, var = (
            arrays[f"{name}.{leaf}"].astype(np.float64)[:, None, None]
            for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * weight + bias

    x = np.maximum(norm("bn1", conv("conv1", x)), 0)
    for stage in (1, 2, 3):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in arrays:
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = np.maximum(norm(f"{at}.bn1", conv(f"{at}.conv1", x, stride)), 0)
            y = norm(f"{at}.bn2", conv(f"{at}.conv2", y))
            if f"{at}.shortcut.0.weight" in arrays:
                x = norm(f"{at}.shortcut.1", conv(f"{at}.shortcut.0", x, stride))
            elif stride == 2:
                more = (y.shape[1] - x.shape[1]) // 2
                x = np.pad(x[:, :, ::2, ::2], [(0, 0), (more, more), (0, 0), (0, 0)])
            x, block = np.maximum(x + y, 0), block + 1
    return x.mean((2, 3)) @ arrays["linear.weight"].T.astype(np.float64) + arrays["linear.bias"]


@pytest.mark.parametrize("projected", ["", "shortcut"])
def test_akamasters_cifar_nets_give_the_logits_of_their_own_forward_pass(
    projected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = cifar(14, projected=projected)
    state = {f"module.{name}": array for name, array in arrays.items()}
    file = torch_like.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "resnet14.th")
    images = nets.pixels(32, 3)
    scaled = (images / 255 - nets.MEAN) / nets.STD
    expected = forward(arrays, scaled.transpose(0, 3, 1, 2))
    model, variables, preprocessing = load_pretrained(file)
    logits = model.apply(variables, images - preprocessing.image_mean)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert main(["import", str(file), "--to", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "cifar_resnet14, 5 classes" in said
    assert ("for zeros behind them give --shortcut A" in said) == (not projected)
    if not projected:
        with_zeros_behind = import_weights(file, tmp_path / "behind", shortcut="A")
        other = with_zeros_behind.model.apply(variables, images - preprocessing.image_mean)
        assert np.abs(other - expected).max() > 0.01


def test_downsample_and_fc_are_the_same_net(tmp_path: Path) -> None:
    ours = cifar(8, projected="shortcut")
    theirs = {name.replace("shortcut", "downsample").replace("linear", "fc"): a for name, a in ours.items()}
    save_file(ours, tmp_path / "a.safetensors")
    save_file(theirs, tmp_path / "b.safetensors")
    assert_same_network(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


def test_a_net_for_small_images_with_four_stages_is_refused(tmp_path: Path) -> None:
    arrays = cifar() | {"layer4.0.conv1.weight": np.zeros((128, 64, 3, 3), np.float32)}
    save_file(arrays, tmp_path / "net.safetensors")
    with pytest.raises(InteropError, match="a 3x3 stem and blocks per stage 1, 1, 1, 1, another net than"):
        load_pretrained(tmp_path / "net.safetensors")


def test_zeros_on_both_sides_are_an_option_of_the_shortcut() -> None:
    x = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    y = SHORTCUTS["A_centered"](x, channels=6, stride=2, conv=None, norm=None)
    np.testing.assert_array_equal(y[..., 1:4], x[:, ::2, ::2])
    assert not np.asarray(y[..., [0, 4, 5]]).any()


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_numbers_that_numpy_lacks_are_named(kind: str, tmp_path: Path) -> None:
    header = json.dumps({"fc.weight": {"dtype": kind, "shape": [2, 3], "data_offsets": [0, 6]}}).encode()
    (tmp_path / "net.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(6))
    with pytest.raises(InteropError, match=f"has fc.weight in {kind}, which NumPy has no type for"):
        load_pretrained(tmp_path / "net.safetensors")


def test_numbers_of_8_bits_in_a_file_of_torch_are_named(tmp_path: Path) -> None:
    dtype = torch_like.Named("torch.float8_e4m3fn")
    storage = torch_like.Storage("UntypedStorage", "0", 6)
    tensor = Made(
        "torch._utils._rebuild_tensor_v3", (storage, 0, (2, 3), (3, 1), False, OrderedDict(), dtype)
    )
    file = torch_like.save({"fc.weight": tensor}, tmp_path / "net.pth")
    with pytest.raises(InteropError, match=r"its state dict holds fc.weight \(torch.float8_e4m3fn\)"):
        load_pretrained(file)


def timm_folder(folder: Path, **cfg: Any) -> Path:
    folder.mkdir()
    save_file(nets.weights(18), folder / "model.safetensors")
    config = {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 224, 224], **cfg}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_of_timm_is_used_at_its_test_size(tmp_path: Path) -> None:
    cfg = {
        "test_input_size": [3, 288, 288],
        "crop_pct": 0.875,
        "test_crop_pct": 1.0,
        "interpolation": "bicubic",
    }
    preprocessing = load_pretrained(timm_folder(tmp_path / "net", **cfg))[2]
    assert (preprocessing.crop, preprocessing.resize) == (288, 288)
    assert preprocessing.interpolation == "pillow-bicubic"


def test_what_cannot_be_honored_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = timm_folder(tmp_path / "net", interpolation="lanczos", crop_mode="border")
    assert main(["import", str(folder), "--to", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "the interpolation 'lanczos' is not known here: images are resized linearly" in said
    assert "crop_mode 'border' is not known here" in said


CLASS_LISTS = [
    ("\ufefftench\ngoldfish\n".encode(), ("tench", "goldfish")),
    (b"tench\r\ngoldfish\r\n", ("tench", "goldfish")),
    (b"{0: 'tench', 1: 'goldfish'}", ("tench", "goldfish")),
    (b'{"1": "goldfish", "0": "tench"}', ("tench", "goldfish")),
    (b'{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', ("tench", "goldfish")),
    (b'\xef\xbb\xbf["tench", "goldfish"]', ("tench", "goldfish")),
    ("tench\nSchäferhund\n".encode("latin-1"), "is not UTF-8"),
    (b"{1: 'tench', 2: 'goldfish'}", "a dict with the labels 1, 2"),
    (b"{0: 'tench',", "begins like a list or dict, and is none"),
    (b"tench\n\ngoldfish", "an empty line 2"),
    (b"[1, 2]", "no name of a class"),
    (b"", "has no names"),
]


@pytest.mark.parametrize(
    ("content", "expected"), CLASS_LISTS, ids=[str(content)[:30] for content, _ in CLASS_LISTS]
)
def test_class_lists_are_read_or_refused(
    content: bytes, expected: tuple[str, ...] | str, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_bytes(content)
    if isinstance(expected, tuple):
        assert read_class_names(tmp_path / "classes.txt") == expected
    else:
        with pytest.raises(InteropError, match=expected):
            read_class_names(tmp_path / "classes.txt")
