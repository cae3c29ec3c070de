"""Writes tests/golden/detection/torchvision.npz with torchvision and PyTorch alone, in float64.

Python -m tests.detection.make_golden, in an environment with torchvision.
"""

import numpy as np
import torch
import torchvision
from torchvision.models.detection._utils import BoxCoder, Matcher

from tests.detection.reference import GOLDEN, THRESHOLDS


def random_boxes(random: np.random.RandomState, count: int, side: float) -> np.ndarray:
    """Returns boxes inside of and over the border of an image, some of them degenerate."""
    center = random.uniform(-0.05 * side, 1.05 * side, (count, 2))
    half = random.uniform(0, 0.3 * side, (count, 2))
    boxes = np.concatenate([center - half, center + half], 1)
    boxes[:: max(1, count // 3), 2] = boxes[:: max(1, count // 3), 0]
    return boxes


def main() -> None:
    """Writes the file."""
    random = np.random.RandomState(0)
    out: dict[str, np.ndarray] = {}
    boxes = random_boxes(random, 200, 60)
    boxes[100:120] = boxes[80:100]  # The same boxes again, at IoU 1.
    boxes[120] = [0, 0, 10, 10]
    boxes[121] = [0, 0, 10, 5]  # At IoU 0.5 exactly.
    scores = np.round(random.uniform(0, 1, 200), 1)  # With ties.
    labels = random.randint(0, 3, 200)
    out |= {"boxes": boxes, "scores": scores, "labels": labels}
    ops = torchvision.ops
    for threshold in THRESHOLDS:
        given = torch.tensor(boxes), torch.tensor(scores)
        out[f"nms_{threshold}"] = ops.nms(*given, threshold).numpy()
        kept = [
            np.flatnonzero(labels == label)[
                ops.nms(given[0][labels == label], given[1][labels == label], threshold).numpy()
            ]
            for label in range(3)
        ]
        out[f"batched_nms_{threshold}"] = np.sort(np.concatenate(kept))
        also = ops.batched_nms(*given, torch.tensor(labels), threshold).numpy()
        assert (np.sort(also) == out[f"batched_nms_{threshold}"]).all()
    x = random.normal(size=(1, 3, 9, 12))
    regions = random_boxes(random, 12, 150)
    out |= {"map": x[0].transpose(1, 2, 0), "regions": regions}
    upstream = random.normal(size=(12, 3, 4, 4))
    out["upstream"] = upstream.transpose(0, 2, 3, 1)
    for aligned in (True, False):
        for samples in (2, 0):
            maps = torch.tensor(x, requires_grad=True)
            pooled = ops.roi_align(
                maps, [torch.tensor(regions)], 4, 1 / 16, sampling_ratio=samples, aligned=aligned
            )
            (pooled * torch.tensor(upstream)).sum().backward()
            out[f"align_{aligned}_{samples}"] = pooled.detach().numpy().transpose(0, 2, 3, 1)
            out[f"align_{aligned}_{samples}_gradient"] = maps.grad.numpy()[0].transpose(1, 2, 0)
    whole = np.round(random_boxes(random, 12, 150) / 8) * 8  # Edges at halves of pixels of the map.
    whole = np.concatenate(
        [np.minimum(whole[:, :2], whole[:, 2:]), np.maximum(whole[:, :2], whole[:, 2:])], 1
    )
    maps = torch.tensor(x, requires_grad=True)
    pooled = ops.roi_pool(maps, [torch.tensor(whole)], 4, 1 / 16)
    (pooled * torch.tensor(upstream)).sum().backward()
    out |= {"whole": whole, "pool": pooled.detach().numpy().transpose(0, 2, 3, 1)}
    out["pool_gradient"] = maps.grad.numpy()[0].transpose(1, 2, 0)
    anchors, targets = (np.abs(random_boxes(random, 20, 80)) for _ in range(2))
    anchors[:, 2:] = anchors[:, :2] + 5 + random.uniform(0, 40, (20, 2))
    targets[:, 2:] = targets[:, :2] + 5 + random.uniform(0, 40, (20, 2))
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    encoded = coder.encode_single(torch.tensor(targets), torch.tensor(anchors))
    far = encoded.numpy() * random.choice([1, 30], (20, 1))
    out |= {"anchors": anchors, "targets": targets, "encoded": encoded.numpy(), "far": far}
    out["decoded"] = coder.decode_single(torch.tensor(far), torch.tensor(anchors)).numpy()
    grid = random_boxes(random, 300, 100)
    objects = random_boxes(random, 5, 100)
    objects[:, 2:] = objects[:, :2] + random.uniform(8, 40, (5, 2))
    overlaps = ops.box_iou(torch.tensor(objects), torch.tensor(np.nan_to_num(grid)))
    matched = Matcher(0.7, 0.3, allow_low_quality_matches=True)(overlaps.clone())
    out |= {"grid": grid, "objects": objects, "overlaps": overlaps.numpy(), "matched": matched.numpy()}
    off = random.normal(size=50) * 2
    for beta in (1.0, 1 / 9):
        loss = torch.nn.functional.smooth_l1_loss(
            torch.tensor(off), torch.zeros(50).double(), beta=beta, reduction="none"
        )
        out[f"smooth_{beta:.3f}"] = loss.numpy()
    logits, wanted = random.normal(size=50) * 5, random.randint(0, 2, 50).astype(float)
    cross = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(wanted), reduction="none"
    )
    out |= {"off": off, "logits": logits, "wanted": wanted, "cross": cross.numpy()}
    np.savez_compressed(GOLDEN, **out)


if __name__ == "__main__":
    main()
