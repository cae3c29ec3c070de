"""The ImageNet recipe of §3.4: 60e4 iterations of batch 256, rate 0.1 divided by 10 when the error plateaus, decay 1e-4.

    python train.py --config=imagenet:resnet50
    python train.py --config=imagenet:plain34
    python train.py --config=imagenet:resnet34 --config.model.shortcut=A        (the residual nets of Table 2)
    python train.py --config=imagenet:resnet18 --config.data.source=synthetic   (without data: 224 × 224 noise)

The argument names the net (default resnet50). Batch normalisation is over groups of 32 images, the authors' 8 GPUs. The paper
does not say which error is watched and when it counts as a plateau: here it is the training error, averaged over 5,000 steps
(an epoch), and the rate falls when five of these in a row have not fallen by 1 % of the best. Decay is on all parameters, as
in Caffe.

Hardware: a TPU slice or several GPUs. Time and error (centre crop, authors' README: 50: 24.7, 101: 23.6, 152: 23.0 %): not run with
this code. The scale and colour augmentation of the recipe are not in it yet: sources of one image size are read.
"""

from ml_collections import ConfigDict

from resnet_jax.training.config import base_config


def get_config(argument: str = "resnet50") -> ConfigDict:
    """Returns the recipe of a net."""
    config = base_config()
    config.batch_size = 256
    config.model.name = argument
    config.model.group_size = 32
    config.data.source = "imagenet2012"
    config.data.test_split = "validation"
    config.data.mean = "pixel"
    config.data.mirror = True
    config.data.synthetic_image_size = 224
    config.data.synthetic_classes = 1000
    config.optimizer.learning_rate = 0.1
    config.optimizer.factor = 0.1
    config.optimizer.plateau_patience = 5
    config.optimizer.plateau_window = 5_000
    config.optimizer.plateau_threshold = 0.01
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.run.steps = 600_000
    config.run.log_every = 100
    config.run.evaluate_every = 5_000
    config.run.checkpoint_every = 1_000
    return config
