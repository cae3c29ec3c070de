"""Constants of a detector: py-faster-rcnn's, as in the paper; detectron2's; those of the embedded set."""

import dataclasses

from resnet_jax.detection.anchors import make_cell, paper_cell

Weights = tuple[float, float, float, float]
"""Factors of the deltas of center x, center y, width and height."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """Every constant of a detector, of training and test.

    Attributes:
        shorter_side: Sides in pixels that the shorter side of a training image is scaled to: one by choice.
        test_shorter_side: Shorter side of a test image, in pixels.
        longest_side: Largest longer side, in pixels.
        bucket: Shorter and longer side of the padded images, in pixels; multiples of the net's stride.
        whole_images: All images fill their bucket: there is no padding to be kept out.
        cell: Anchors at a place, edges relative to its center, in pixels.
        anchor_offset: Place of the center in a cell of the map, as a share of the stride.
        only_inside: Anchors over the border are not trained.
        anchor_positive: Least overlap (IoU) of an anchor that is an object; an object's best is one too.
        anchor_negative: Overlap below which an anchor is background.
        anchor_sample: Anchors of an image that are trained, at most half of them positive.
        rpn_channels: Channels of the proposal network's first layer. None is as many as the map has.
        rpn_beta: Difference from which on the smooth L1 of proposals is linear.
        train_before: Anchors that proposals are made of in training, the most likely ones.
        train_proposals: Proposals of a training image.
        test_before: Anchors that proposals are made of at test.
        test_proposals: Proposals of a test image.
        proposal_overlap: Overlap above which the less likely of two proposals is dropped.
        smallest_proposal: Least side of a proposal, in pixels of the original image.
        regions: Regions of an image that the head is trained on.
        region_share: Share of them that are objects, at most.
        region_positive: Least overlap of a region with an object that it is trained to be.
        pooling: "pool" (RoIPool, rounded) or "align" (RoIAlign).
        bins: Rows and columns of a pooled region.
        samples: Samples of RoIAlign in a bin and direction. None is one for every pixel of the map.
        head_weights: Factors of the head's deltas.
        head_beta: Difference from which on the smooth L1 of the head's boxes is linear.
        score_threshold: Least score of a detection.
        detection_overlap: Overlap above which the less likely of two detections of a class is dropped.
        detections: Detections of an image at most.
        scales: Shorter sides of a test image for multi-scale testing, in pixels.
        canonical_side: Side in pixels by which a region chooses its two scales: it is smaller at one of
            them and larger at the other.
    """

    shorter_side: tuple[int, ...] = (600,)
    test_shorter_side: int = 600
    longest_side: int = 1000
    bucket: tuple[int, int] = (608, 1008)
    whole_images: bool = False
    cell: tuple[Weights, ...] = dataclasses.field(default_factory=paper_cell)
    anchor_offset: float = 0.5
    only_inside: bool = True
    anchor_positive: float = 0.7
    anchor_negative: float = 0.3
    anchor_sample: int = 256
    rpn_channels: int | None = 512
    rpn_beta: float = 1 / 9
    train_before: int = 12000
    train_proposals: int = 2000
    test_before: int = 6000
    test_proposals: int = 300
    proposal_overlap: float = 0.7
    smallest_proposal: float = 16.0
    regions: int = 128
    region_share: float = 0.25
    region_positive: float = 0.5
    pooling: str = "pool"
    bins: int = 14
    samples: int | None = 2
    head_weights: Weights = (10.0, 10.0, 5.0, 5.0)
    head_beta: float = 1.0
    score_threshold: float = 0.05
    detection_overlap: float = 0.3
    detections: int = 100
    scales: tuple[int, ...] = (200, 400, 600, 800, 1000)
    canonical_side: float = 224.0

    def at_scale(self, shorter: int) -> "Profile":
        """Returns the profile with test images of this shorter side, in a bucket that is scaled with them."""
        factor = shorter / self.test_shorter_side
        short, long = (-(-side * shorter // self.test_shorter_side // 16) * 16 for side in self.bucket)
        return dataclasses.replace(
            self,
            test_shorter_side=shorter,
            longest_side=round(self.longest_side * factor),
            bucket=(short, long),
        )


PROFILES = {
    "paper": Profile(),
    "detectron2_c4": Profile(
        shorter_side=(640, 672, 704, 736, 768, 800),
        test_shorter_side=800,
        longest_side=1333,
        bucket=(800, 1344),
        cell=make_cell((32, 64, 128, 256, 512), (0.5, 1.0, 2.0)),
        anchor_offset=0.0,
        only_inside=False,
        rpn_channels=None,
        rpn_beta=0.0,
        test_proposals=1000,
        smallest_proposal=0.0,
        regions=512,
        pooling="align",
        samples=None,
        head_beta=0.0,
        detection_overlap=0.5,
        scales=(400, 600, 800, 1000, 1200),
    ),
    "scenes": Profile(
        shorter_side=(128,),
        test_shorter_side=128,
        longest_side=128,
        bucket=(128, 128),
        whole_images=True,
        cell=make_cell((16, 32, 64), (0.5, 1.0, 2.0)),
        anchor_sample=64,
        rpn_channels=64,
        train_before=256,
        train_proposals=64,
        test_before=256,
        test_proposals=64,
        smallest_proposal=4.0,
        regions=32,
        region_share=0.5,
        pooling="align",
        bins=6,
        scales=(64, 96, 128, 160, 192),
        canonical_side=40.0,
    ),
}
"""Profiles by name."""
