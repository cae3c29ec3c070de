"""The nets of the paper once more, in PyTorch and in its idiom, to compare with.

Only imported where torch is installed.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class ZeroPadShortcut(nn.Module):
    """Option A: subsample, then append channels of zeros."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra_planes = planes - in_planes

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra_planes))


def make_shortcut(option: str, in_planes: int, planes: int, stride: int) -> nn.Module | None:
    if option == "none":
        return None
    same = in_planes == planes and stride == 1
    if option == "A":
        return nn.Identity() if same else ZeroPadShortcut(in_planes, planes, stride)
    if option == "B" and same:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_planes, planes, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(planes)
    )


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_planes: int, planes: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = make_shortcut(option, in_planes, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            out = out + self.downsample(x)
        return F.relu(out)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(
        self, in_planes: int, planes: int, stride: int, option: str, *, stride_in_1x1: bool = True
    ) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=1, stride=stride_1x1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=stride_3x3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = make_shortcut(option, in_planes, planes * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            out = out + self.downsample(x)
        return F.relu(out)


class BottleneckV15(Bottleneck):
    def __init__(self, in_planes: int, planes: int, stride: int, option: str) -> None:
        super().__init__(in_planes, planes, stride, option, stride_in_1x1=False)


class ResNet(nn.Module):
    """Table 1 with four entries in `layers` and planes 64; §4.2 with three, planes 16 and `cifar`."""

    def __init__(
        self,
        block: Callable[..., nn.Module],
        layers: Sequence[int],
        option: str,
        *,
        cifar: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        planes = 16 if cifar else 64
        self.cifar = cifar
        self.in_planes = planes
        if cifar:
            self.conv1 = nn.Conv2d(3, planes, kernel_size=3, stride=1, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, planes, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.stages = len(layers)
        for i, blocks in enumerate(layers):
            self.add_module(
                f"layer{i + 1}", self._make_layer(block, planes * 2**i, blocks, 1 if i == 0 else 2, option)
            )
        self.fc = nn.Linear(self.in_planes, num_classes)

    def _make_layer(
        self, block: Callable[..., nn.Module], planes: int, blocks: int, stride: int, option: str
    ) -> nn.Sequential:
        layers = []
        for i in range(blocks):
            layers.append(block(self.in_planes, planes, stride if i == 0 else 1, option))
            self.in_planes = planes * block.expansion
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if not self.cifar:
            x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


ARCHITECTURES = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet14": (Bottleneck, (1, 1, 1, 1)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet50_v1.5": (BottleneckV15, (3, 4, 6, 3)),
    "cifar20": (BasicBlock, (3, 3, 3)),
}


def create(architecture: str, option: str, num_classes: int) -> ResNet:
    block, layers = ARCHITECTURES[architecture]
    return ResNet(block, layers, option, cifar=architecture.startswith("cifar"), num_classes=num_classes)
