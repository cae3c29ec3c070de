r"""The ImageNet recipe of §3.4: 60e4 iterations of batch 256, rate 0.1 divided by 10 on plateaus.

    python train.py --config=imagenet:resnet50
    python train.py --config=imagenet:resnet50 --config.data.source=FOLDER
    python train.py --config=imagenet:plain34
    python train.py --config=imagenet:resnet34,A   (with shortcut A, as in Table 2)
    python train.py --config=imagenet:resnet18 --config.data.source=synthetic   (without data: noise)

The argument names the net (default resnet50), and after a comma the shortcut where it is not the family's B.
Batch normalization is over groups of 32 images, the authors' 8 GPUs. The paper does not say which error is
watched and when it counts as a plateau: here it is the training error, averaged over 5,000 steps (an epoch),
and the rate falls when five of these in a row have not fallen by 1 % of the best. Decay is on all parameters,
as in Caffe.

The shorter side is drawn from [256, 480], of it a 224 crop of the image or its mirror, and colors vary along
their principal components. What is subtracted is the published mean of each channel. For the paper's mean of
each pixel, and for other sets:

    resnet-jax statistics SOURCE statistics.npz
    python train.py --config=imagenet --config.data.source=SOURCE --config.data.mean=statistics.npz \
        --config.data.color=statistics.npz

SOURCE is an image folder (train/CLASS/*.jpg and val/CLASS/*.jpg), what `resnet-jax prepare` made of one or of
the official tars, or a set of TFDS. Tested on the center crop of the image with shorter side 256.

Hardware: a TPU slice or several GPUs. The rows of Tables 2 and 3, with the paper's 10-crop error and what a
training costs (`resnet-jax paper table3 --plan`); on the center crop the authors' README has 24.7, 23.6 and
23.0 % for 50, 101 and 152 layers. Not run with this code:

    | argument   | expected error (%) | multiply-adds of the training |
    |------------|--------------------|-------------------------------|
    | plain18    |              27.94 |                       8.3e+17 |
    | plain34    |              28.54 |                       1.7e+18 |
    | resnet18,A |              27.88 |                       8.3e+17 |
    | resnet34,A |              25.03 |                       1.7e+18 |
    | resnet34,B |              24.52 |                       1.7e+18 |
    | resnet34,C |              24.19 |                       1.8e+18 |
    | resnet50   |              22.85 |                       1.8e+18 |
    | resnet101  |              21.75 |                       3.5e+18 |
    | resnet152  |              21.43 |                       5.2e+18 |
"""

from resnet_jax.training.config import Config, base_config


def get_config(argument: str = "resnet50") -> Config:
    """Returns the recipe of a net."""
    config = base_config()
    config.batch_size = 256
    config.model.name, _, config.model.shortcut = argument.partition(",")
    config.model.group_size = 32
    config.data.source = "imagenet2012"
    config.data.test_split = "validation"
    config.data.mean = "imagenet"
    config.data.mirror = True
    config.data.color = "imagenet"
    config.data.image_size = 224
    config.data.crop = "scale"
    config.data.scales = (256, 480)
    config.data.test_scale = 256
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
    config.run.workers = None
    config.run.log_every = 100
    config.run.evaluate_every = 5_000
    config.run.checkpoint_every = 1_000
    return config
