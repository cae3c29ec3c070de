"""Where PyTorch and transformers are installed: imports against them.

`python -m tests.interop.test_against_torch` writes the golden file.
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.interop import nets
from tests.interop.test_import import (
    BLOCKS,
    CASES,
    GOLDEN,
    activations_of,
    assert_close,
    logits_of,
    quick_for,
)
from tests.models.parity import digest

torch = pytest.importorskip("torch")

from resnet_jax.interop import load_pretrained  # noqa: E402
from tests.models import torch_reference  # noqa: E402


def torch_net(case: str):  # type: ignore[no-untyped-def]
    """Returns the net of a case in PyTorch with its weights."""
    depth, _, stride_on = case.partition("_")
    kind, layers = nets.STAGES[int(depth)]
    bottleneck = torch_reference.BottleneckV15 if stride_on == "3x3" else torch_reference.Bottleneck
    block = torch_reference.BasicBlock if kind == "basic" else bottleneck
    net = torch_reference.ResNet(block, layers, "B", cifar=False, num_classes=10).eval()
    tensors = {name: torch.from_numpy(array) for name, array in nets.weights(int(depth)).items()}
    missing, unexpected = net.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return net


def torch_input(images: np.ndarray):  # type: ignore[no-untyped-def]
    return torch.from_numpy(
        ((images / 255 - nets.MEAN) / nets.STD).transpose(0, 3, 1, 2).astype(np.float32).copy()
    )


def run_torch(net) -> np.ndarray:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        found = net(torch_input(nets.pixels()))
    return (found.logits if hasattr(found, "logits") else found).numpy()


def run_blocks(net) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    found: dict[str, np.ndarray] = {}
    for name, module in net.named_modules():
        if isinstance(module, torch_reference.Bottleneck):
            module.register_forward_hook(lambda _, __, out, name=name: found.update({name: out.numpy()}))
    run_torch(net)
    return found


def transformers_net(folder: Path):  # type: ignore[no-untyped-def]
    """Returns the net of a folder as transformers reads it, every array used."""
    transformers = pytest.importorskip("transformers")
    net, report = transformers.ResNetForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(
        name
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for name in report[kind]
        if "num_batches" not in name
    )
    return net.eval()


@pytest.mark.parametrize("case", [*quick_for(), "18_legacy"])
def test_pth_files_give_the_same_logits(case: str, tmp_path: Path) -> None:
    case, _, legacy = case.partition("_legacy") if case.endswith("legacy") else (case, "", "")
    net = torch_net(case)
    torch.save(net.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    loaded = load_pretrained(tmp_path / "net.pth", stride_on=case.partition("_")[2] or None)
    assert_close(logits_of(*loaded, nets.pixels()), run_torch(net))


@pytest.mark.parametrize("case", BLOCKS)
def test_every_block_of_50_layers_gives_the_same_activations(case: str, tmp_path: Path) -> None:
    net = torch_net(case)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    ours = activations_of(
        *load_pretrained(tmp_path / "net.pth", stride_on=case.partition("_")[2]), nets.pixels()
    )
    theirs = run_blocks(net) | {"logits": run_torch(net)}
    assert len(theirs) == 17
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert_close(ours[name], expected)


@pytest.mark.parametrize("case", quick_for("50_3x3"))
def test_folders_that_transformers_writes_give_the_same_logits(case: str, tmp_path: Path) -> None:
    net = transformers_net(nets.write_hugging_face(tmp_path / "made", case))
    net.save_pretrained(tmp_path / "net")
    assert_close(logits_of(*load_pretrained(tmp_path / "net"), nets.pixels()), run_torch(net))


@pytest.mark.slow
def test_vgg_gives_the_same_logits(tmp_path: Path) -> None:
    layers: list = []
    into = 3
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        for _ in range(depth):
            layers += [torch.nn.Conv2d(into, 64 * min(2**stage, 8), 3, padding=1), torch.nn.ReLU()]
            into = 64 * min(2**stage, 8)
        layers.append(torch.nn.MaxPool2d(2, 2))
    parts = [
        torch.nn.Linear(512 * 49, 4096),
        torch.nn.ReLU(),
        torch.nn.Dropout(),
        torch.nn.Linear(4096, 4096),
        torch.nn.ReLU(),
    ]
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


def write_golden() -> None:
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            net = torch_net(case)
            golden[case] = run_torch(net)
            golden[f"hugging_face_{case}"] = run_torch(
                transformers_net(nets.write_hugging_face(Path(folder) / case, case))
            )
            if case in BLOCKS:
                golden[f"blocks_{case}"] = digest(run_blocks(net))[1]
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    write_golden()
