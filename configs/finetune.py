r"""Fine-tuning: the weights of a run or of a file, a fresh last layer, and a tenth of the learning rate.

    python train.py --config=finetune:resnet50.pth --config.data.source=photos --workdir=runs/mine
    python train.py --config=finetune:runs/digits_resnet20 \
        --config.optimizer.frozen='["stem","stage1"]' --workdir=runs/mine
    python train.py --config=finetune:imported/resnet50 \
        --config.optimizer.rate_factors='["stage*=0.1"]' --workdir=runs/mine

The argument is where the network comes from: the workdir of a run or an import, a file of weights
(torchvision's or timm's), or a folder of Hugging Face or timm; `--config.initial.source` says the same. Its
network and its image size are taken over, and its data until another is set. For a folder of images, splits,
batch size and schedule are chosen to fit, and printed. Images are less the mean that the weights were trained
with. docs/finetune.md goes through it step by step.

Hardware: 2 CPU cores for the digits, an accelerator for ImageNet's nets. Time: seconds for the digits.
Expected: better than from scratch after the same few steps.
"""

from collections.abc import Collection

from resnet_jax.data.datasets import is_path
from resnet_jax.interop.import_cache import as_run
from resnet_jax.training.config import Config, base_config, flat_fields, with_fields
from resnet_jax.training.own_images import fit_recipe
from resnet_jax.training.stored_code import read_trusted_config

DEFAULT = "runs/digits_resnet20"


def get_config(source: str = "") -> Config:
    """Returns the recipe for the weights of a run, a file or a folder."""
    config = base_config()
    config.initial.source = DEFAULT
    config.model.group_size = 16
    config.data.pad = 1
    if source:
        _take_over(config, source)
    config.optimizer.learning_rate = 0.01
    config.optimizer.boundaries = (200,)
    config.run.steps = 300
    return config


def _take_over(config: Config, source: str) -> None:
    config.initial.source = as_run(source)
    before = read_trusted_config(config.initial.source)
    config.model, config.data, config.batch_size = before.model, before.data, before.batch_size


def fit_to_data(config: Config, given: Collection[str]) -> Config:
    """Returns the recipe for the weights and the folder that the config names; fields that are given stay."""
    if "initial.source" in given and config.initial.source:
        taken = base_config()
        _take_over(taken, config.initial.source)
        own = {
            path: value
            for path, value in flat_fields(taken).items()
            if path.startswith(("model.", "data.", "batch_size")) and path not in given
        }
        config = with_fields(config, own | {"initial.source": taken.initial.source})
    if "data.source" in given and config.data.source and is_path(config.data.source):
        return fit_recipe(config, given, network=False)
    return config
