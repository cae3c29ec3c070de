"""The sections of a config about where weights come from and what they are used for."""

import dataclasses

from resnet_jax.training.config_fields import ABOVE_ZERO, Section, one_of, recipe


@dataclasses.dataclass
class InitialConfig(Section):
    """The weights that training starts from."""

    prefix = "initial."
    source: str | None = recipe(
        None, "Run or import whose weights the network starts from. None is a random initialization."
    )
    head: str = recipe(
        "fresh", "Last layer: fresh, or kept where the classes are the same.", one_of("fresh", "kept")
    )
    from_recipe: str | None = recipe(
        None,
        "Recipe that is trained first, into WORKDIR/initial, in place of a source: NAME[:ARGUMENT].",
    )
    statistics: str = recipe(
        "moving",
        "Statistics of batch normalization to start with: moving, or precise, recomputed from all training "
        "images (`resnet-jax evaluate --precise-bn`; of a recipe they are computed here).",
        one_of("moving", "precise"),
    )


@dataclasses.dataclass
class InferenceConfig(Section):
    """How prediction and exported programs treat a picture, where that differs from evaluation."""

    prefix = "inference."
    resize: int | None = recipe(None, "Shorter side in pixels. None is data.test_scale.", ABOVE_ZERO)
    crop: int | None = recipe(
        None,
        "Side of the center crop in pixels. None is data.image_size, or the size of the data.",
        ABOVE_ZERO,
    )
    interpolation: str | None = recipe(
        None,
        "Resizing of pictures by Pillow, as in PyTorch's pipelines. None is area-averaging and linear.",
        one_of("pillow-bilinear", "pillow-bicubic"),
    )
    class_names: tuple[str, ...] | None = recipe(None, "Class names by label. None takes those of the data.")


@dataclasses.dataclass
class DetectionConfig(Section):
    """Object detection, for task=detection (docs/detection.md)."""

    prefix = "detection."
    profile: str = recipe(
        "paper",
        "Constants of the detector: paper (py-faster-rcnn's), detectron2_c4, or scenes (embedded set).",
        one_of("paper", "detectron2_c4", "scenes"),
    )
    part: str = recipe(
        "joint",
        "What is trained: joint (approximate joint training), or one half: rpn, fast_rcnn.",
        one_of("joint", "rpn", "fast_rcnn"),
    )
    proposals: str | None = recipe(
        None, "File of `resnet-jax proposals` that part=fast_rcnn takes its regions from."
    )
    context: bool = recipe(False, "Regions also see the whole image (global context, appendix B).")
    objects: int = recipe(64, "Objects of an image at most; an image with more is refused.", ABOVE_ZERO)
    protocol: str = recipe(
        "single",
        "How the test split is judged: single, refine (box refinement, appendix B), multi-scale, or both.",
        one_of("single", "refine", "multi-scale", "refine+multi-scale"),
    )
