"""Where PyTorch and transformers are installed: imports and exports against them. `python -m …` writes the golden logits."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.interop import nets
from tests.interop.test_import import CASES, GOLDEN, PARAMETERS, assert_close, logits_of

torch = pytest.importorskip("torch")

from resnet_jax.interop import load_pretrained  # noqa: E402
from tests.models import torch_reference  # noqa: E402


def torch_net(case: str):  # type: ignore[no-untyped-def]
    depth, _, stride_on = case.partition("_")
    kind, layers = nets.STAGES[int(depth)]
    block = {"basic": torch_reference.BasicBlock, "bottleneck": torch_reference.Bottleneck}[kind]
    if stride_on == "3x3":
        block = torch_reference.BottleneckV15
    return torch_reference.ResNet(block, layers, "B", cifar=False, num_classes=10).eval()


def torch_input(images: np.ndarray):  # type: ignore[no-untyped-def]
    return torch.from_numpy(((images / 255 - nets.MEAN) / nets.STD).transpose(0, 3, 1, 2).astype(np.float32).copy())


def run_torch(case: str) -> np.ndarray:
    net = torch_net(case)
    missing, unexpected = net.load_state_dict(tensors(nets.weights(int(case.partition("_")[0]))), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    with torch.no_grad():
        return net(torch_input(nets.pixels())).numpy()


def tensors(arrays: nets.Arrays) -> dict:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("case", PARAMETERS)
@pytest.mark.parametrize("legacy", [False, True])
def test_pth_files_give_the_same_logits(case: str, legacy: bool, tmp_path: Path) -> None:
    if legacy and case != "18":
        pytest.skip("one net is enough for the older form of the file")
    depth, _, stride_on = case.partition("_")
    net = torch_net(case)
    net.load_state_dict(tensors(nets.weights(int(depth))), strict=False)
    torch.save(net.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    loaded = load_pretrained(tmp_path / "net.pth", stride_on=stride_on or None)
    assert_close(logits_of(*loaded, nets.pixels()), run_torch(case))


def test_every_block_of_50_layers_gives_the_same_activations(tmp_path: Path) -> None:
    save_file(nets.weights(50), tmp_path / "net.safetensors")
    model, variables, preprocessing = load_pretrained(tmp_path / "net.safetensors")
    images = nets.pixels().astype(np.float32) - preprocessing.image_mean
    _, state = model.apply(variables, images, capture_intermediates=True)
    net, theirs = torch_net("50_3x3"), {}
    net.load_state_dict(tensors(nets.weights(50)), strict=False)
    for name, module in net.named_modules():
        if isinstance(module, torch_reference.Bottleneck):
            module.register_forward_hook(lambda _, __, out, name=name: theirs.update({name: out.numpy()}))
    with torch.no_grad():
        net(torch_input(nets.pixels()))
    assert len(theirs) == 16
    for name, expected in theirs.items():
        stage, block = name.removeprefix("layer").split(".")
        ours = state["intermediates"][f"stage{stage}"][f"block{int(block) + 1}"]["__call__"][0]
        assert_close(np.asarray(ours).transpose(0, 3, 1, 2), expected)


@pytest.mark.parametrize(("depth", "in_bottleneck"), [(18, False), (50, False), (50, True)])
def test_hugging_face_folders_give_the_same_logits(depth: int, in_bottleneck: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    kind, depths = nets.STAGES[depth]
    sizes = [64 * (4 if kind == "bottleneck" else 1) * 2**stage for stage in range(4)]
    config = transformers.ResNetConfig(
        layer_type=kind, depths=list(depths), hidden_sizes=sizes, num_labels=10, downsample_in_bottleneck=in_bottleneck
    )
    config.id2label = {label: f"thing {label}" for label in range(10)}
    net = transformers.ResNetForImageClassification(config).eval()
    with torch.no_grad():
        for name, array in net.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                damped = 0.3 if name.endswith(f"layer.{2 if kind == 'bottleneck' else 1}.normalization.weight") else 1
                array.copy_(torch.from_numpy(damped * nets.draw(name, tuple(array.shape))))
    net.save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": list(nets.MEAN), "image_std": list(nets.STD), "size": {"shortest_edge": 224}, "crop_pct": 0.875})
    )
    model, variables, preprocessing = load_pretrained(tmp_path / "net")
    with torch.no_grad():
        expected = net(torch_input(nets.pixels())).logits.numpy()
    assert (preprocessing.resize, preprocessing.crop) == (256, 224)
    assert_close(logits_of(model, variables, preprocessing, nets.pixels()), expected)


def test_vgg_gives_the_same_logits(tmp_path: Path) -> None:
    layers: list = []
    into = 3
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        for _ in range(depth):
            layers += [torch.nn.Conv2d(into, 64 * min(2**stage, 8), 3, padding=1), torch.nn.ReLU()]
            into = 64 * min(2**stage, 8)
        layers.append(torch.nn.MaxPool2d(2, 2))
    parts = [torch.nn.Linear(512 * 49, 4096), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(4096, 4096), torch.nn.ReLU()]
    net = torch.nn.Module()
    net.features, net.classifier = (
        torch.nn.Sequential(*layers),
        torch.nn.Sequential(*parts, torch.nn.Dropout(), torch.nn.Linear(4096, 7)),
    )
    net.eval()
    torch.save(net.state_dict(), tmp_path / "vgg.pth")
    images = nets.pixels(224, 1)
    with torch.no_grad():
        expected = net.classifier(torch.flatten(net.features(torch_input(images)), 1)).numpy()
    assert_close(logits_of(*load_pretrained(tmp_path / "vgg.pth"), images), expected)


if __name__ == "__main__":
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(GOLDEN, **{case: run_torch(case) for case in CASES})
