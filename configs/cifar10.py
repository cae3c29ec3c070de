"""The CIFAR-10 recipe of §4.2: 64k iterations of batch 128, rate 0.1 divided by 10 at 32k and 48k.

    python train.py --config=cifar10
    python train.py --config=cifar10:resnet110
    python train.py --config=cifar10:plain56,cifar100
    python train.py --config=cifar10:resnet20,validation   (trains on 45k images, tests on the other 5k)

The argument names the net (resnetN or plainN, N = 6n + 2; default resnet20), and where it is wanted the data
set (cifar10 or cifar100) and the split (validation), separated by commas. Batch normalization is over groups
of 64 images, the paper's two GPUs. The net of 110 layers warms up at 0.01 until its training error is below
80 %.

The net of 1202 layers is trained as the others; its activations are recomputed by groups of 14 blocks, to fit
into memory.

Hardware: one accelerator. CIFAR is prepared by TFDS once, which needs `pip install
'resnet-jax[tfds-prepare]'`. The rows of Table 6, with the paper's error and what a training costs
(`resnet-jax paper table6 --plan`); not run in full with this code:

    | argument   | expected error (%) | multiply-adds of the training |
    |------------|--------------------|-------------------------------|
    | resnet20   |               8.75 |                       1.0e+15 |
    | resnet32   |               7.51 |                       1.7e+15 |
    | resnet44   |               7.17 |                       2.4e+15 |
    | resnet56   |               6.97 |                       3.1e+15 |
    | resnet110  |               6.43 |                       6.2e+15 |
    | resnet1202 |               7.93 |                       7.0e+16 |
"""

from resnet_jax.training.config import Config, base_config

DATA = ("cifar10", "cifar100")


def get_config(argument: str = "resnet20") -> Config:
    """Returns the recipe of a net, a data set and a split, named in any order and separated by commas."""
    config = base_config()
    config.batch_size = 128
    config.model.name = "cifar_resnet20"
    config.model.shortcut = ""  # A in this family, nothing in plain nets.
    config.model.group_size = 64
    config.data.source = "cifar10"
    config.data.mean = "pixel"
    config.data.pad = 4
    config.data.mirror = True
    config.optimizer.learning_rate = 0.1
    config.optimizer.boundaries = (32_000, 48_000)
    config.optimizer.factor = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.run.steps = 64_000
    config.run.log_every = 50
    config.run.evaluate_every = 1_000
    config.run.checkpoint_every = 1_000
    for word in argument.split(","):
        if word in DATA:
            config.data.source = word
        elif word == "validation":
            config.data.train_split, config.data.test_split = "train[:45000]", "train[45000:]"
        elif word.startswith(("resnet", "plain")):
            config.model.name = f"cifar_{word}"
        else:
            raise ValueError(
                f"unknown {word!r}; name a net (resnet56, plain20), cifar10 or cifar100, and validation"
            )
    if config.model.name == "cifar_resnet1202":
        config.run.remat = 14
    if config.model.name == "cifar_resnet110":
        config.optimizer.warmup_until_error = 0.8
        config.optimizer.warmup_rate = 0.01
    return config
