"""ResNet-20 on scikit-learn's digits: the CIFAR-10 recipe of §4.2 scaled to a minute on a laptop.

    python train.py
    python train.py --config=digits_resnet20 --config.seed=1 --workdir=runs/seed1

Hardware: 2 CPU cores. Time: under a minute. Expected: 99 % test accuracy.

From the recipe come the net, the rate of 0.1 divided by 10 at one half and three quarters of the steps,
momentum, decay and the batch of 128. Its own are the statistics over groups of 16, and the augmentation:
digits are not mirrored, and are moved by one pixel at most (mirrored and moved by four they are 94 % right,
no longer being digits).
"""

from resnet_jax.training.config import Config, base_config


def get_config() -> Config:
    """Returns the recipe."""
    config = base_config()
    config.batch_size = 128
    config.model.name = "cifar_resnet20"
    config.model.group_size = 16
    config.data.source = "digits"
    config.data.pad = 1
    config.optimizer.learning_rate = 0.1
    config.optimizer.boundaries = (150, 225)
    config.run.steps = 300
    config.run.checkpoint_every = 50
    config.run.evaluate_every = 10
    return config
