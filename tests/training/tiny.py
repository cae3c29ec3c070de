"""A run that takes seconds: an eight-layer net of four filters on 8×8 noise."""

from pathlib import Path
from typing import Any

from resnet_jax.training.config import Config, base_config


def get_config(**changes: Any) -> Config:
    config = base_config()
    config.batch_size = 16
    config.model.name = "cifar_resnet8"
    config.model.group_size = 4
    config.data.source = "synthetic"
    config.data.synthetic_examples = 200
    config.data.synthetic_image_size = 8
    config.data.synthetic_classes = 7
    config.data.pad = 1
    config.data.mirror = True
    config.optimizer.boundaries = (30, 45)
    config.run.steps = 60
    config.run.devices = 2
    config.run.checkpoint_every = 7
    config.run.evaluate_every = 20
    config.run.tensorboard = False
    config.update_from_flattened_dict(changes)
    return config


PATH = Path(__file__)
