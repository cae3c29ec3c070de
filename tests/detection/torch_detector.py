"""The detector once more, in PyTorch and composed of torchvision's parts, to compare with.

Only imported where torchvision is installed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder

from resnet_jax.detection.anchors import anchor_grid
from resnet_jax.detection.profiles import Profile
from tests.models.torch_reference import BasicBlock

PLANES = (16, 32, 64, 128)
NAMES = {
    "norm": "bn", "conv": "conv", "projection_norm": "downsample.1", "projection": "downsample.0",
    "kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var",
}  # fmt: skip


class TorchDetector(nn.Module):
    """Faster R-CNN on a small residual net of basic blocks; `forward` is the inference of a batch."""

    def __init__(self, profile: Profile, classes: int, mean: np.ndarray) -> None:
        super().__init__()
        self.profile, self.classes = profile, classes
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        before = (16, *PLANES)
        for stage, planes in enumerate(PLANES):
            first = BasicBlock(before[stage], planes, 2 if stage else 1, "B")
            self.add_module(f"stage{stage + 1}", nn.Sequential(first, BasicBlock(planes, planes, 1, "B")))
        anchors, channels = len(profile.cell), profile.rpn_channels
        self.rpn_conv = nn.Conv2d(64, channels, 3, 1, 1)
        self.rpn_object, self.rpn_deltas = (
            nn.Conv2d(channels, anchors, 1),
            nn.Conv2d(channels, 4 * anchors, 1),
        )
        self.score, self.deltas = nn.Linear(128, classes + 1), nn.Linear(128, 4 * classes)

    def load(self, variables: Mapping[str, Any]) -> None:
        """Takes the variables of our detector."""
        state = {}

        def visit(node: Any, path: tuple[str, ...]) -> None:
            if isinstance(node, Mapping):
                for name, below in node.items():
                    visit(below, (*path, name))
                return
            order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[node.ndim]
            state[torch_name(path)] = torch.tensor(np.asarray(node).transpose(order))

        for collection in ("params", "batch_stats"):
            visit(variables[collection], ())
        missing, unknown = self.load_state_dict(state, strict=False)
        assert not unknown, unknown
        assert all(name.endswith("num_batches_tracked") for name in missing), missing

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Returns boxes, scores and labels of the detections of each image [n, 3, h, w]."""
        side = images.shape[2:]
        x = self.stage3(self.stage2(self.stage1(self.stem(images.to(self.mean.dtype) - self.mean))))
        proposals = self.propose(x, side)
        profile = self.profile
        pooled = ops.roi_align(
            x, proposals, profile.bins, 1 / 8, sampling_ratio=profile.samples, aligned=True
        )
        features = self.stage4(pooled).mean((2, 3))
        counts = [len(boxes) for boxes in proposals]
        scores = self.score(features).softmax(1)[:, :-1].split(counts)
        deltas = self.deltas(features).split(counts)
        return [self.select(*found, side) for found in zip(proposals, scores, deltas, strict=True)]

    def propose(self, x: Tensor, side: torch.Size) -> list[Tensor]:
        """Returns the proposals of each image."""
        hidden, count = self.rpn_conv(x).relu(), len(x)
        logits = self.rpn_object(hidden).permute(0, 2, 3, 1).reshape(count, -1)
        deltas = self.rpn_deltas(hidden).permute(0, 2, 3, 1).reshape(count, -1, 4)
        profile, found = self.profile, []
        grid = anchor_grid(x.shape[2], x.shape[3], stride=8, cell=profile.cell, offset=profile.anchor_offset)
        anchors = torch.tensor(grid, dtype=x.dtype)
        for image in range(count):
            scores, order = logits[image].topk(profile.test_before)
            boxes = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(deltas[image][order], anchors[order])
            boxes = ops.clip_boxes_to_image(boxes, side)
            large = ops.remove_small_boxes(boxes, profile.smallest_proposal)
            boxes, scores = boxes[large], scores[large]
            found.append(boxes[ops.nms(boxes, scores, profile.proposal_overlap)[: profile.test_proposals]])
        return found

    def select(
        self, regions: Tensor, scores: Tensor, deltas: Tensor, side: torch.Size
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the detections of an image."""
        profile = self.profile
        boxes = BoxCoder(profile.head_weights).decode(deltas, [regions]).reshape(-1, 4)
        boxes, scores = ops.clip_boxes_to_image(boxes, side), scores.reshape(-1)
        labels = torch.arange(self.classes).repeat(len(regions))
        likely = scores > profile.score_threshold
        boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
        keep = ops.batched_nms(boxes, scores, labels, profile.detection_overlap)[: profile.detections]
        return boxes[keep], scores[keep], labels[keep]


def torch_name(path: tuple[str, ...]) -> str:
    """Returns the name here of a variable of ours."""
    *places, leaf = path
    if places[0] == "stem":
        places = ["stem", "0" if places[1] == "conv" else "1"]
    elif places[0].startswith("stage"):
        stage, block, layer = places
        kind = layer.rstrip("12")
        number = layer[len(kind) :]
        places = [stage, str(int(block.removeprefix("block")) - 1), NAMES[kind] + number]
    return ".".join([*places, NAMES[leaf]])
