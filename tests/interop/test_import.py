"""Imported weights give the logits of the framework that they come from, and every array is used once or
named."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from resnet_jax import load_checkpoint, load_pretrained
from resnet_jax.cli import main
from resnet_jax.interop import InteropError, import_weights
from resnet_jax.training.checkpoints import read_checkpoint
from resnet_jax.training.workdir import WorkdirError, read_config
from tests.interop import nets
from tests.models.parity import digest

GOLDEN = Path(__file__).parents[1] / "golden" / "interop" / "logits.npz"
BLOCKS = ("50_1x1", "50_3x3")
CASES = ["18", "34", *(f"{depth}_{stride}" for depth in (50, 101, 152) for stride in ("1x1", "3x3"))]


def quick_for(*names: str) -> list:
    """All cases, with all but those names marked slow."""
    return [pytest.param(case, marks=() if case in names else pytest.mark.slow) for case in CASES]


def logits_of(model, variables, preprocessing, images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(model.apply)(variables, images.astype(np.float32) - preprocessing.image_mean))


def activations_of(model, variables, preprocessing, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what every block gives, [N, C, H, W], by its name in torchvision, and the logits under
    "logits"."""

    def run(variables, images):  # type: ignore[no-untyped-def]
        return model.apply(
            variables, images, capture_intermediates=lambda module, _: (module.name or "").startswith("block")
        )

    logits, state = jax.jit(run)(variables, images.astype(np.float32) - preprocessing.image_mean)
    found = {
        f"layer{stage.removeprefix('stage')}.{int(block.removeprefix('block')) - 1}": np.asarray(
            out
        ).transpose(0, 3, 1, 2)
        for (stage, block, _), (out,) in flatten_dict(state["intermediates"]).items()
    }
    return found | {"logits": np.asarray(logits)}


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("case", quick_for("18", "50_1x1", "50_3x3"))
def test_torchvision_weights_give_the_logits_that_pytorch_computed(case: str, tmp_path: Path) -> None:
    depth, _, stride_on = case.partition("_")
    save_file(nets.weights(int(depth)), tmp_path / "net.safetensors")
    loaded = load_pretrained(tmp_path / "net.safetensors", stride_on=stride_on or None)
    golden = np.load(GOLDEN)
    assert np.abs(golden[case][0] - golden[case][1]).max() > 1e-2 * np.abs(golden[case]).max()
    activations = activations_of(*loaded, nets.pixels())
    assert_close(activations.pop("logits"), golden[case])
    if case in BLOCKS:
        names, rows = digest(activations)
        assert len(names) == 16
        expected = golden[f"blocks_{case}"]
        assert (np.abs(rows - expected).max(1) <= 1e-4 * expected[:, 0]).all()


@pytest.mark.parametrize("case", quick_for("18", "50_1x1"))
def test_hugging_face_weights_give_the_logits_that_transformers_computed(case: str, tmp_path: Path) -> None:
    model, variables, preprocessing = load_pretrained(nets.write_hugging_face(tmp_path / "net", case))
    assert (preprocessing.resize, preprocessing.crop) == (256, 224)
    assert_close(
        logits_of(model, variables, preprocessing, nets.pixels()), np.load(GOLDEN)[f"hugging_face_{case}"]
    )


def small(tmp_path: Path, change=lambda arrays: arrays) -> Path:  # type: ignore[no-untyped-def]
    path = tmp_path / "net.safetensors"
    save_file(change(nets.weights(18)), path)
    return path


def test_an_import_is_a_workdir_as_any_other(tmp_path: Path) -> None:
    imported = import_weights(small(tmp_path), tmp_path / "run")
    model, variables = load_checkpoint(str(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, variables, imported.variables)
    images = nets.pixels().astype(np.float32)
    np.testing.assert_array_equal(
        model.apply(variables, images), imported.model.apply(imported.variables, images)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.safetensors", "run"]
    np.testing.assert_allclose(
        read_checkpoint(tmp_path / "run").arrays["image_mean"], 255 * nets.MEAN, rtol=1e-6
    )


def test_another_number_of_classes_gives_a_fresh_head_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(small(tmp_path)), "--to", str(tmp_path / "run"), "--classes", "3"]) == 0
    assert (
        "the last layer is fresh: 3 classes instead of 10; fine-tune before it is used"
        in capsys.readouterr().out
    )
    assert load_checkpoint(str(tmp_path / "run"))[1]["params"]["head"]["kernel"].shape == (512, 3)


def without(name: str):  # type: ignore[no-untyped-def]
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


WRONG = [
    (without("layer3.1.conv2.weight"), "layer3.1.conv2.weight is missing"),
    (lambda a: a | {"layer1.0.se.fc.weight": a["fc.weight"]}, "layer1.0.se.fc.weight is left over"),
    (lambda a: a | {"bn1.bias": a["bn1.bias"][:-1]}, "bn1.bias is [63], expected [64]"),
    (lambda a: a | {"bn1.bias": a["bn1.bias"] * np.nan}, "bn1.bias holds numbers that are not finite"),
    (lambda a: a | {"bn1.bias": a["bn1.bias"].astype(np.int32)}, "bn1.bias holds int32"),
    (lambda a: {k: v for k, v in a.items() if not k.startswith("layer4.1")}, "blocks per stage 2, 2, 2, 1"),
    (lambda _: nets.weights(18, width=32), "bn1.running_mean is [32], expected [64]"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_does_not_fit_is_one_line_and_nothing_is_written(change, message, tmp_path, capsys) -> None:
    path = small(tmp_path, change)
    assert main(["import", str(path), "--to", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert [found.name for found in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_workdir_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(WorkdirError, match="not empty"):
        import_weights(small(tmp_path), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["nothing.pth", "folder", "net.h5"])
def test_what_is_no_source_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "net.h5").write_bytes(b"x")
    with pytest.raises(InteropError, match=name):
        load_pretrained(tmp_path / name)


def test_the_data_of_a_net_with_other_classes_than_imagenets_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_weights(nets.write_hugging_face(tmp_path / "net", "18"), tmp_path / "run")
    config = read_config(tmp_path / "run")
    assert (config.data.source, config.data.image_size, config.data.test_scale) == (None, 224, 256)
    assert config.inference.class_names == tuple(f"thing {label}" for label in range(10))
    assert main(["evaluate", "--workdir", str(tmp_path / "run")]) == 2
    assert "the data of this net is not known" in capsys.readouterr().err
    import_weights(small(tmp_path), tmp_path / "whole", num_classes=1000)
    assert read_config(tmp_path / "whole").data.source == "imagenet2012"


TIMM = {"architecture": "resnet18", "num_classes": 10, "global_pool": "avg"}


def timm_folder(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    picture = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.25, 0.5],
        "input_size": [3, 224, 224],
        "crop_pct": 0.95,
    }
    (folder / "config.json").write_text(json.dumps(TIMM | {"pretrained_cfg": picture} | changes))
    save_file(nets.weights(18), folder / "model.safetensors")
    return folder


def test_folders_of_timm_are_the_same_net_and_say_what_images_are_to_be(tmp_path: Path) -> None:
    _, variables, preprocessing = load_pretrained(timm_folder(tmp_path / "net"))
    save_file(nets.weights(18), tmp_path / "net.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, load_pretrained(tmp_path / "net.safetensors")[1])
    assert (preprocessing.resize, preprocessing.crop) == (235, 224)  # timm's floor of 224 / 0.95.
    np.testing.assert_allclose(preprocessing.image_mean, [127.5] * 3)
    np.testing.assert_allclose(preprocessing.input_scale, [1 / 127.5, 1 / 63.75, 1 / 127.5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "resnet50d"},
            "timm's resnet50d, another net; allowed are resnet18, 34, 50, 101 and 152",
        ),
        ({"architecture": "resnext50_32x4d"}, "timm's resnext50_32x4d, another net"),
        ({"global_pool": "catavgmax"}, "has global_pool 'catavgmax', another net; it must be 'avg'"),
        ({"pretrained_cfg": {"mean": [0.5]}}, "they must be three numbers each"),
        ({"pretrained_cfg": {"crop_pct": 0}}, "is not as its library writes it: ZeroDivisionError"),
        ({"pretrained_cfg": {"input_size": [3, 10**9, 10**9]}}, "they must be at most 4096 and rise"),
    ],
)
def test_other_nets_of_timm_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InteropError, match=re.escape(message)):
        load_pretrained(timm_folder(tmp_path / "net", **changes))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv1.0.weight", "three convolutions in the stem (names that end in d, s or t)"),
        ("layer2.0.downsample.2.weight", "an average pool before the projections (names that end in d)"),
        ("layer1.0.se.fc1.weight", "squeeze and excitation (seresnet)"),
    ],
)
def test_files_of_timms_variants_are_refused_by_what_they_are(
    name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(
        InteropError, match=re.escape(f"is a net of timm's with {message}, another net than the paper's")
    ):
        load_pretrained(small(tmp_path, lambda arrays: arrays | {name: arrays["bn1.bias"]}))


def test_names_of_classes_come_from_a_file_and_must_be_as_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(["ant", "bee", "cat"]))
    command = [
        "import",
        str(small(tmp_path)),
        "--class-names",
        str(tmp_path / "names.txt"),
        "--to",
        str(tmp_path / "run"),
    ]
    assert main(command) == 2
    assert "3 class names are given, and the net has 10 classes" in capsys.readouterr().err
    assert main([*command, "--classes", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"]["name"], told["model"]["num_classes"], told["workdir"]) == (
        "resnet18",
        3,
        str(tmp_path / "run"),
    )
    assert read_config(tmp_path / "run").inference.class_names == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "0"], "num_classes must be at least 1, and is 0"),
        (["--class-names", "nowhere.txt"], "nowhere.txt cannot be read: No such file"),
        (["--stride-on", "3x3"], "--stride-on is 3x3, and"),
        (["--mean", "1,2,3"], "--mean is for a .caffemodel"),
    ],
)
def test_options_that_do_not_fit_are_named(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(small(tmp_path)), "--to", str(tmp_path / "run"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
