r"""Faster R-CNN on a residual network (appendices A and B), on embedded scenes, PASCAL VOC and COCO.

    python train.py --config=faster_rcnn:scenes
    python train.py --config=faster_rcnn:voc07 --config.initial.source=imported/resnet101
    python train.py --config=faster_rcnn:voc0712 --config.data.source=VOCdevkit --config.data.train_split=… \
        --config.initial.source=imported/resnet101
    python train.py --config=faster_rcnn:coco,detectron2_c4 --config.initial.source=imported/resnet50 \
        --config.model.name=resnet50
    python train.py --config=faster_rcnn:voc07,stage=1 --config.initial.source=imported/resnet101

`scenes` needs no download: it first trains a small network to tell single digits (`faster_rcnn:backbone`,
into WORKDIR/initial), recomputes its statistics of batch normalization, and then learns to find digits in
scenes.

The others begin with a network that was trained on ImageNet: a run of `imagenet`, or an import of `resnet-jax
import`. `voc07`, `voc0712` and `coco` are approximate joint training of ResNet-101 with the constants of
py-faster-rcnn; after a comma, `detectron2_c4` takes those of detectron2's R50-C4. `stage=1` to `stage=4` are
the four steps of the paper's alternation (docs/detection.md has the commands).

Hardware: 2 CPU cores for `scenes`, accelerators for the others. Time: 7 minutes for `scenes` on 2 idle cores.
Expected: 0.88 to 0.91 mAP@.5 for `scenes`; `voc0712` 76.4 on VOC 2007, `coco` 48.4 @.5 and 27.2 @[.5, .95]
(Tables 7 and 8). Measured: `scenes` in docs/detection.md; the others were not trained here.
"""

from resnet_jax.training.config import Config, base_config
from resnet_jax.training.config_fields import ConfigError

FROZEN = ("stem", "stage1", "*norm*")
"""Stem, first stage and every normalization stay as they are (detectron2 and tf-faster-rcnn; appendix A)."""

TRUNK = ("stem", "stage[123]", "*norm*")
"""All that is shared by the two halves of the alternation."""


def get_config(argument: str = "scenes") -> Config:
    """Returns the recipe: NAME, NAME,detectron2_c4, or NAME,stage=1 to 4."""
    name, _, option = argument.partition(",")
    small = {"scenes": _scenes, "backbone": _backbone}
    if name in small and not option:
        return small[name]()
    if name not in ("voc07", "voc0712", "coco"):
        raise ConfigError(
            f"unknown recipe faster_rcnn:{argument}; allowed are scenes, backbone, voc07, voc0712 and "
            "coco, the "
            "last three also with ,detectron2_c4 or ,stage=1 to ,stage=4"
        )
    config = _paper(name)
    if option == "detectron2_c4":
        _detectron2(config, name)
    elif option in ("stage=1", "stage=2", "stage=3", "stage=4"):
        _alternation(config, name, int(option[-1]))
    elif option:
        raise ConfigError(
            f"faster_rcnn:{name} has no {option!r}; allowed are detectron2_c4, and stage=1 to stage=4"
        )
    return config


def _small_network(config: Config) -> None:
    config.model.name = "resnet18"
    config.model.variants = ("width:16", "small_stem")


def _backbone() -> Config:
    """Returns the recipe of the classifier of single digits that the scenes' detector begins with."""
    config = base_config()
    _small_network(config)
    config.batch_size = 64
    config.model.group_size = 32
    config.data.source = "photo_digits"
    config.data.mean = "channel"
    config.optimizer.learning_rate = 0.05
    config.optimizer.boundaries = (360, 510)
    config.optimizer.warmup_steps = 50
    config.optimizer.warmup_form = "linear"
    config.optimizer.decay_mask = "kernels"
    config.run.steps = 600
    config.run.evaluate_every = 200
    config.run.checkpoint_every = 200
    return config


def _scenes() -> Config:
    config = base_config()
    config.task = "detection"
    _small_network(config)
    config.batch_size = 8
    config.model.group_size = 1
    config.data.source = "scenes"
    config.data.mean = "channel"
    config.initial.from_recipe = "faster_rcnn:backbone"
    config.initial.statistics = "precise"
    config.detection.profile = "scenes"
    config.detection.objects = 8
    config.optimizer.learning_rate = 0.04
    config.optimizer.boundaries = (1200, 1700)
    config.optimizer.warmup_steps = 50
    config.optimizer.warmup_rate = 0.004
    config.optimizer.warmup_form = "linear"
    config.optimizer.decay_mask = "kernels"
    config.optimizer.gradient_clip = 5.0
    config.run.steps = 2000
    config.run.evaluate_every = 500
    config.run.checkpoint_every = 500
    return config


def _paper(name: str) -> Config:
    """Returns approximate joint training with py-faster-rcnn's constants; COCO's schedule is the paper's."""
    config = base_config()
    config.task = "detection"
    config.model.name = "resnet101"
    config.model.group_size = 1
    config.data.mean = "channel"
    config.data.mirror = True
    config.optimizer.frozen = FROZEN
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 5e-4
    config.optimizer.rate_factors = ("*/bias=2",)
    config.run.log_every = 20
    config.run.workers = None
    if name == "coco":
        config.batch_size = 8
        config.detection.objects = 128
        config.data.source, config.data.test_split = "coco/2017", "validation"
        config.optimizer.boundaries, config.run.steps = (240_000,), 320_000
    else:
        config.batch_size = 2
        config.data.source, config.data.train_split = "voc/2007", "train+validation"
        config.optimizer.boundaries, config.run.steps = (50_000,), 70_000
        if name == "voc0712":
            config.data.source = "VOCdevkit"
            config.data.train_split, config.data.test_split = "2007:trainval+2012:trainval", "2007:test"
            config.optimizer.boundaries, config.run.steps = (80_000,), 110_000
    config.run.evaluate_every = config.run.checkpoint_every = config.run.steps // 20
    return config


def _detectron2(config: Config, name: str) -> None:
    """Changes a recipe to the constants of detectron2's R50-C4, 1×: for batches of 16 images."""
    config.detection.profile = "detectron2_c4"
    config.batch_size = 16
    config.optimizer.learning_rate = 0.02
    config.optimizer.weight_decay = 1e-4
    config.optimizer.rate_factors = ()
    config.optimizer.warmup_form = "linear"
    config.optimizer.warmup_rate = 2e-5
    config.optimizer.warmup_steps = 1000 if name == "coco" else 100
    config.optimizer.boundaries = (60_000, 80_000) if name == "coco" else (12_000, 16_000)
    config.run.steps = 90_000 if name == "coco" else 18_000
    config.run.evaluate_every = config.run.checkpoint_every = config.run.steps // 18


def _alternation(config: Config, name: str, stage: int) -> None:
    """Changes a recipe to a step of the 4-step alternation (arXiv 1506.01497, §3.2; appendix A for COCO)."""
    proposing = stage in (1, 3)
    config.detection.part = "rpn" if proposing else "fast_rcnn"
    if stage > 2:
        config.optimizer.frozen = TRUNK
    if name == "coco":
        config.batch_size = 8 if proposing else 16
        return
    config.batch_size = 1 if proposing else 2
    config.optimizer.boundaries = (60_000,) if proposing else (30_000,)
    config.run.steps = 80_000 if proposing else 40_000
    config.run.evaluate_every = config.run.checkpoint_every = config.run.steps // 20
