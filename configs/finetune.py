r"""Fine-tuning: the weights of a run or an import, a fresh last layer, and a tenth of the learning rate.

    python train.py --config=finetune:imported/resnet50 --config.data.source=DATA --workdir=runs/mine
    python train.py --config=finetune:runs/digits_resnet20 \
        --config.optimizer.frozen='["stem","stage1"]' --workdir=runs/mine
    python train.py --config=finetune:imported/resnet50 \
        --config.optimizer.rate_factors='["stage*=0.1"]' --workdir=runs/mine

The argument is the workdir that the net comes from (default runs/digits_resnet20); its net and its data are
taken over, the data until another is set. Images are less the mean that the weights were trained with.
docs/finetune.md goes through it step by step.

Hardware: 2 CPU cores for the digits, an accelerator for ImageNet's nets. Time: seconds for the digits.
Expected: better than from scratch after the same few steps.
"""

from resnet_jax.training.config import Config, base_config
from resnet_jax.training.stored_code import read_trusted_config


def get_config(workdir: str = "") -> Config:
    """Returns the recipe for the weights of a workdir."""
    config = base_config()
    config.initial.source = workdir or "runs/digits_resnet20"
    config.model.group_size = 16
    config.data.pad = 1
    if workdir:
        before = read_trusted_config(workdir)
        config.model, config.data, config.batch_size = before.model, before.data, before.batch_size
    config.optimizer.learning_rate = 0.01
    config.optimizer.boundaries = (200,)
    config.run.steps = 300
    return config
