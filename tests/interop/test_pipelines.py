"""`rj.load` predicts like the pipeline of the framework that a network comes from, from files to classes."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from safetensors.numpy import load_file, save_file

import resnet_jax as rj
from resnet_jax.cli import main
from tests.data.messy import write_messy
from tests.interop import nets

torch = pytest.importorskip("torch")
from tests.models import torch_reference  # noqa: E402

MEAN, STD = nets.MEAN, nets.STD


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A folder with `run`, a ResNet-18 trained on photographs, `net.safetensors` and `hf`; and pictures."""
    root = tmp_path_factory.mktemp("pipelines")
    photos = write_messy(root / "photos", count=24)
    fields = ["model.name=resnet18", "run.steps=24", "run.devices=1", "data.image_size=64"]
    command = ["train", "--config=folder", f"--config.data.source={photos}", f"--workdir={root / 'run'}"]
    assert main([*command, *(f"--config.{field}" for field in fields)]) == 0
    assert main(["export", "--workdir", str(root / "run"), "--to", str(root / "exported.safetensors")]) == 0
    arrays = load_file(root / "exported.safetensors")
    save_file(arrays, root / "net.safetensors")  # Without the record, as torchvision has it.
    (root / "hf").mkdir()
    save_file(nets.hugging_face(arrays), root / "hf" / "model.safetensors")
    config = {"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2]}
    config |= {"hidden_sizes": [64, 128, 256, 512], "id2label": {"0": "a", "1": "b", "2": "c"}}
    (root / "hf" / "config.json").write_text(json.dumps(config))
    processor = {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 2}
    processor |= {"image_mean": MEAN.tolist(), "image_std": STD.tolist()}
    (root / "hf" / "preprocessor_config.json").write_text(json.dumps(processor))
    pictures = [path for path in sorted(photos.glob("*/**/IMG*")) if path.is_file()]
    return root, pictures[:60]


def framework(
    root: Path, pictures: list[Path], *, resize: int, crop: int, mean: np.ndarray, std: np.ndarray
) -> np.ndarray:
    """Returns the probabilities of PyTorch's own pipeline: Resize, CenterCrop, Normalize, the network."""
    net = torch_reference.create("resnet18", "B", 3).eval()
    state = {name: torch.from_numpy(array) for name, array in load_file(root / "net.safetensors").items()}
    net.load_state_dict(state, strict=False)
    rows = []
    for picture in pictures:
        image = PIL.Image.open(picture).convert("RGB")
        width, height = image.size
        size = (
            (resize, int(resize * height / width))
            if width <= height
            else (int(resize * width / height), resize)
        )
        image = image.resize(size, PIL.Image.Resampling.BILINEAR)
        left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
        pixels = np.asarray(image.crop((left, top, left + crop, top + crop)), np.float32)
        rows.append(((pixels / 255 - mean) / std).transpose(2, 0, 1))
    with torch.no_grad():
        logits = net(torch.from_numpy(np.stack(rows).astype(np.float32)))
    return torch.softmax(logits, -1).numpy()


def probabilities(trained: rj.Trained, pictures: list[Path]) -> np.ndarray:
    logits = np.asarray(trained.logits([str(picture) for picture in pictures]), np.float64)
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["net.safetensors", "hf", "run"])
def test_probabilities_are_those_of_the_original_pipeline(
    trained: tuple[Path, list[Path]], source: str
) -> None:
    root, pictures = trained
    assert len(pictures) >= 50
    options = {"resize": 256, "crop": 224, "mean": MEAN, "std": STD}
    if source == "run":
        preprocessing = rj.load(root / "run").preprocessing
        options = {"resize": preprocessing.resize, "crop": preprocessing.crop, "std": np.full(3, 1 / 255)}
        options["mean"] = preprocessing.image_mean / 255
    expected = framework(root, pictures, **options)
    exact = probabilities(rj.load(root / source, interpolation="pillow-bilinear"), pictures)
    np.testing.assert_allclose(exact, expected, atol=1e-4, rtol=0)
    usual = probabilities(rj.load(root / source), pictures)
    assert np.median(np.abs(usual - expected).max(-1)) <= 1e-2
    ordered = np.sort(expected, -1)
    sure = ordered[:, -1] - ordered[:, -2] > 0.1
    np.testing.assert_array_equal(usual.argmax(-1)[sure], expected.argmax(-1)[sure])
