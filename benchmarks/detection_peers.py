"""What ours, torchvision and the floor compute in the cases of `benchmarks/detection.py`."""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchvision

from resnet_jax.detection.boxes import iou
from resnet_jax.detection.detecting import make_detect
from resnet_jax.detection.nms import best, nms
from resnet_jax.detection.roi import roi_align

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.detection.detector_case import CLASSES, MEAN, batch, detector, weights
from tests.detection.torch_detector import TorchDetector

Call = Callable[[], Sequence[np.ndarray]]


class Suppression(NamedTuple):
    """A case of non-maximum suppression.

    Attributes:
        boxes: Boxes that are given.
        count: Boxes that are kept at most.
        threshold: Overlap (IoU) above which the less likely box is dropped.
    """

    boxes: int
    count: int
    threshold: float


class Pooling(NamedTuple):
    """A case of RoIAlign.

    Attributes:
        map: Height, width and channels of the map.
        regions: Regions that are pooled.
        bins: Rows and columns of a pooled region.
        stride: Pixels of the image for a pixel of the map.
    """

    map: tuple[int, int, int]
    regions: int
    bins: int
    stride: int


class Inference(NamedTuple):
    """A case of the whole inference.

    Attributes:
        images: Images of a batch.
    """

    images: int


Case = Suppression | Pooling | Inference

CASES: dict[str, Case] = {
    "nms_300": Suppression(300, 300, 0.3),
    "nms_2000": Suppression(2000, 300, 0.7),
    "nms_6000": Suppression(6000, 300, 0.7),
    "nms_12000": Suppression(12000, 2000, 0.7),
    "align_small": Pooling((16, 16, 64), 256, 6, 8),
    "align_large": Pooling((38, 63, 1024), 128, 14, 16),
    "scenes": Inference(8),
}


def proposals(count: int, height: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes crowded around twenty objects, and scores that are higher the closer they are.

    A third of the boxes is anywhere, with lower scores, as a proposal network gives them.
    """
    random = np.random.RandomState(0)
    center = random.uniform(0.1, 0.9, (20, 2)) * [width, height]
    half = random.uniform(0.05, 0.2, (20, 2)) * min(height, width)
    which, anywhere = random.randint(0, 20, count), random.uniform(size=count) < 1 / 3
    off = random.normal(size=(count, 4)) * random.uniform(0, 0.6, (count, 1))
    at = np.where(
        anywhere[:, None],
        random.uniform(size=(count, 2)) * [width, height],
        center[which] + off[:, :2] * half[which],
    )
    sides = half[which] * np.exp(off[:, 2:])
    boxes = np.concatenate([at - sides, at + sides], 1).clip(0, [width, height] * 2)
    scores = 0.3 * random.normal(size=count) - np.abs(off).sum(1) - 2 * anywhere
    return boxes.astype(np.float32), scores.astype(np.float32)


def our_suppression(case: Suppression) -> dict[str, Call]:
    """Returns our suppression."""
    boxes, scores = map(jnp.asarray, proposals(case.boxes, 600, 1000))
    valid = jnp.ones(case.boxes, bool)
    suppress = jax.jit(partial(nms, threshold=case.threshold, count=case.count))
    return {"forward": lambda: (np.asarray(jax.block_until_ready(suppress(boxes, scores, valid))),)}


def their_suppression(case: Suppression) -> dict[str, Call]:
    """Returns torchvision's suppression, cut to the number of boxes."""
    boxes, scores = map(torch.tensor, proposals(case.boxes, 600, 1000))

    def suppress() -> Sequence[np.ndarray]:
        keep = torch.zeros(case.boxes, dtype=torch.bool)
        keep[torchvision.ops.nms(boxes, scores, case.threshold)[: case.count]] = True
        return (keep.numpy(),)

    return {"forward": suppress}


def floor_of_suppression(case: Suppression) -> dict[str, Call]:
    """Returns the sort and all overlaps alone; nothing for many boxes."""
    if case.boxes > 512:
        return {}
    boxes, scores = map(jnp.asarray, proposals(case.boxes, 600, 1000))
    valid = jnp.ones(case.boxes, bool)

    def floor(boxes: jax.Array, scores: jax.Array) -> jax.Array:
        order, _ = best(scores, valid, case.boxes)
        return iou(boxes[order], boxes[order]) > case.threshold

    compiled = jax.jit(floor)
    return {"forward": lambda: jax.block_until_ready(compiled(boxes, scores))}


def inputs(case: Pooling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a map, regions and a gradient of the pooled regions, channels last."""
    random = np.random.RandomState(1)
    height, width, channels = case.map
    boxes, _ = proposals(case.regions, height * case.stride, width * case.stride)
    upstream = random.normal(size=(case.regions, case.bins, case.bins, channels))
    return random.normal(size=case.map).astype(np.float32), boxes, upstream.astype(np.float32)


def our_pooling(case: Pooling) -> dict[str, Call]:
    """Returns our RoIAlign, forward and with its gradient to the map."""
    x, boxes, upstream = map(jnp.asarray, inputs(case))
    valid = jnp.ones(case.regions, bool)
    pool = partial(roi_align, stride=case.stride, bins=case.bins, samples=2)
    forward = jax.jit(lambda x, boxes: pool(x, boxes, valid))

    def both(x: jax.Array, boxes: jax.Array, upstream: jax.Array) -> tuple[jax.Array, jax.Array]:
        pooled, pull = jax.vjp(lambda x: pool(x, boxes, valid), x)
        return pooled, pull(upstream)[0]

    gradient = jax.jit(both)
    return {
        "forward": lambda: (np.asarray(jax.block_until_ready(forward(x, boxes))),),
        "gradient": lambda: tuple(map(np.asarray, jax.block_until_ready(gradient(x, boxes, upstream)))),
    }


def their_pooling(case: Pooling) -> dict[str, Call]:
    """Returns torchvision's RoIAlign, channels first as it computes, forward and with its gradient."""
    x, boxes, upstream = map(torch.tensor, inputs(case))
    x = x.permute(2, 0, 1)[None].contiguous()
    upstream = upstream.permute(0, 3, 1, 2).contiguous()
    pool = partial(
        torchvision.ops.roi_align,
        boxes=[boxes],
        output_size=case.bins,
        spatial_scale=1 / case.stride,
        sampling_ratio=2,
        aligned=True,
    )

    def forward() -> Sequence[np.ndarray]:
        with torch.inference_mode():
            return (pool(x).permute(0, 2, 3, 1).numpy(),)

    def gradient() -> Sequence[np.ndarray]:
        given = x.detach().requires_grad_()
        pooled = pool(given)
        pooled.backward(upstream)
        return pooled.detach().permute(0, 2, 3, 1).numpy(), given.grad[0].permute(1, 2, 0).numpy()

    return {"forward": forward, "gradient": gradient}


def our_inference(case: Inference) -> dict[str, Call]:
    """Returns our detections of a batch: their scores, highest first."""
    variables, images = jax.device_put(weights()), jax.device_put(batch(case.images))
    mean, detect = jnp.asarray(MEAN, jnp.float32), jax.jit(make_detect(detector()))

    def infer() -> Sequence[np.ndarray]:
        found = jax.block_until_ready(detect(variables, mean, images))
        return (np.asarray(jnp.where(found.valid, found.score, 0)),)

    return {"forward": infer}


def their_inference(case: Inference) -> dict[str, Call]:
    """Returns the detections of torchvision's parts, in the faster layout."""
    images = torch.tensor(batch(case.images)["image"]).permute(0, 3, 1, 2)
    detections = detector().profile.detections

    def made(layout: torch.memory_format) -> Call:
        model = TorchDetector(detector().profile, CLASSES, MEAN).float().eval()
        model.load(weights())
        model, given = model.to(memory_format=layout), images.contiguous(memory_format=layout)

        def infer() -> Sequence[np.ndarray]:
            with torch.inference_mode():
                scores = [found[1] for found in model(given)]
            return (np.stack([np.pad(of_image, (0, detections - len(of_image))) for of_image in scores]),)

        return infer

    calls = [made(layout) for layout in (torch.contiguous_format, torch.channels_last)]
    for call in calls:
        call()
    return {"forward": min(calls, key=lambda call: median(clock for clock, _ in seconds(call, 5)))}


SIDES = ("ours", "torchvision", "floor")

MAKERS: dict[type[Any], dict[str, Callable[[Any], dict[str, Call]]]] = {
    Suppression: {"ours": our_suppression, "torchvision": their_suppression, "floor": floor_of_suppression},
    Pooling: {"ours": our_pooling, "torchvision": their_pooling},
    Inference: {"ours": our_inference, "torchvision": their_inference},
}
"""What each side computes in a case, by the name of the part."""


def seconds(call: Call, times: int) -> list[tuple[float, float]]:
    """Returns how long each of several calls takes: by the clock, and of all threads' processor time."""
    taken = []
    for _ in range(times):
        start, used = time.perf_counter(), time.process_time()
        call()
        taken.append((time.perf_counter() - start, time.process_time() - used))
    return taken
