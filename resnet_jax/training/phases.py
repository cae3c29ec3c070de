"""A run that begins with the weights of a recipe of its own, which is trained first, inside its workdir."""

from collections.abc import Callable

from etils import epath
from rich.console import Console

from resnet_jax.console import print_line
from resnet_jax.models.import_by_name import import_by_name
from resnet_jax.training.checkpoints import steps_in
from resnet_jax.training.config import Config, with_fields
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.recipes import load_recipe
from resnet_jax.training.stored_statistics import PRECISE, has_precise

INITIAL = "initial"
"""Directory in a workdir of the run that the run begins with."""

HANDED_ON = ("mapping", "devices", "tensorboard", "compilation_cache", "data_dir", "workers")
"""Fields of the section `run` that hold for the recipe too."""

RECOMPUTE = "resnet_jax.evaluation.precise_statistics:recompute_batch_statistics"
"""Recomputes statistics of batch normalization; by name, since evaluation stands on training."""

Run = Callable[[Config, epath.Path, Console], object]
"""Trains a config in a workdir, from where it stands to its end."""


def train_initial(
    config: Config, workdir: epath.Path, console: Console, *, processes: int, run: Run
) -> Config:
    """Trains what is left of the recipe that a run begins with; returns the config with it as the source.

    Args:
        config: The resolved config of the run.
        workdir: Its directory; the recipe is trained in the directory INITIAL in it.
        console: Console that says what is done.
        processes: Number of processes of the run.
        run: Trains a recipe.

    Raises:
        ConfigError: Several processes would train the recipe.
    """
    initial, where = config.initial, workdir / INITIAL
    if initial.from_recipe is None:
        return config
    values = {f"run.{name}": getattr(config.run, name) for name in HANDED_ON}
    first = with_fields(load_recipe(initial.from_recipe), values | {"seed": config.seed})
    saved = steps_in(where)
    if not saved or saved[-1] < first.run.steps:
        if processes > 1:
            raise ConfigError(
                f"config.initial.from_recipe is {initial.from_recipe!r}, which one process trains; "
                "train it alone, and give its workdir as --config.initial.source with "
                "--config.initial.from_recipe=None"
            )
        print_line(console, f"first {initial.from_recipe}, whose weights this run begins with, into {where}")
        run(first, where, console)
    if initial.statistics == PRECISE and not has_precise(where, steps_in(where)[-1]):
        print_line(console, "recomputing its statistics of batch normalization from all training images")
        import_by_name(RECOMPUTE, field="config.initial.statistics")(str(where))
    return with_fields(config, {"initial.from_recipe": None, "initial.source": str(where)})
