r"""Faster R-CNN (appendices A and B): on the embedded scenes, VOC and COCO.

python train.py --config=faster_rcnn:scenes
"""

from resnet_jax.training.config import Config, base_config


def get_config(name: str = "scenes") -> Config:
    """Returns the recipe."""
    return {"scenes": _scenes, "backbone": _backbone}[name]()


def _network(config: Config) -> None:
    config.model.name = "resnet18"
    config.model.variants = ("width:16", "small_stem")


def _backbone() -> Config:
    config = base_config()
    _network(config)
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
    _network(config)
    config.batch_size = 8
    config.model.group_size = 1
    config.data.source = "scenes"
    config.data.mean = "channel"
    config.initial.from_recipe = "faster_rcnn:backbone"
    config.initial.statistics = "precise"
    config.detection.profile = "scenes"
    config.detection.objects = 8
    config.optimizer.learning_rate = 0.04
    config.optimizer.boundaries = (1800, 2550)
    config.optimizer.warmup_steps = 50
    config.optimizer.warmup_rate = 0.004
    config.optimizer.warmup_form = "linear"
    config.optimizer.decay_mask = "kernels"
    config.optimizer.gradient_clip = 5.0
    config.run.steps = 3000
    config.run.evaluate_every = 500
    config.run.checkpoint_every = 500
    return config
