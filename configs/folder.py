"""Your own images, in one command: layout, image size, network, batch size and schedule are chosen to fit.

    python train.py --config=folder --config.data.source=photos
    python train.py --config=folder --config.data.source=photos --config.run.epochs=20
    python train.py --config=folder --config.data.source=photos --config.model.name=resnet18 \
        --config.data.image_size=128

The folder holds `train/CLASS/…` and `val`, `validation` or `test`, or class folders alone, which are then
split by a hash of the files' names: four fifths to train on, one fifth to test on. What is chosen is printed
as the equivalent explicit command; a field that you give stays. docs/data.md says what is chosen when.

Hardware: 2 CPU cores for some hundred images, an accelerator for many. Time: 78 s for the 144 training images
of the tests' messy folder on 2 cores. Expected: depends on the images. With few of them, try fine-tuning a
network that was trained on many (`--config=finetune`).
"""

from collections.abc import Collection

from resnet_jax.training.config import Config, base_config
from resnet_jax.training.own_images import fit_recipe


def get_config() -> Config:
    """Returns the recipe before the images are known."""
    config = base_config()
    config.data.source = None
    config.data.mean = "channel"
    config.data.mirror = True
    config.data.image_size = 64
    config.data.test_scale = 72
    config.data.scales = (64, 96)
    config.optimizer.learning_rate = 0.1
    return config


def fit_to_data(config: Config, given: Collection[str]) -> Config:
    """Returns the recipe for the folder that the config names; fields that are given stay."""
    return fit_recipe(config, given) if config.data.source else config
