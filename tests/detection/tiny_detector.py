"""A recipe of a detector that is trained in seconds, and of the classifier that it begins with."""

from pathlib import Path

from resnet_jax.training.config import Config, mutable_copy
from resnet_jax.training.recipes import load_recipe


def get_config(name: str = "detector") -> Config:
    """Returns the recipe: detector, or backbone."""
    config = mutable_copy(load_recipe("faster_rcnn:scenes" if name == "detector" else "faster_rcnn:backbone"))
    config.model.name, config.model.variants = "resnet18", ("width:4", "small_stem")
    config.run.steps = 12 if name == "detector" else 4
    config.run.evaluate_every = config.run.checkpoint_every = 4
    config.run.tensorboard = False
    config.optimizer.boundaries = ()
    if name == "detector":
        config.initial.from_recipe = f"{Path(__file__)}:backbone"
    return config
