"""Training from Python: a recipe by name, with other values of some fields."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from etils import epath
from rich.console import Console

from resnet_jax.files import PathLike, as_path
from resnet_jax.object_storage import is_url
from resnet_jax.training.config import Config, with_fields
from resnet_jax.training.logging import Record, read_metrics
from resnet_jax.training.recipes import load_recipe, recipe_name
from resnet_jax.training.run import run


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        workdir: Directory of the run; `resnet_jax.load(result.workdir)` gives the trained network.
        metrics: Metrics of the last step: `loss`, `top1`, `test_top1` and so on.
        history: Metrics of all steps that were recorded, in order.

    Example:
        >>> result = train("digits_resnet20", "runs/short", {"run.steps": 100})
        >>> losses = [record["loss"] for record in result.history]
    """

    workdir: Path | epath.Path
    metrics: Record
    history: tuple[Record, ...]


def train_recipe(
    recipe: str | Config,
    workdir: PathLike | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    quiet: bool = False,
) -> Result:
    """Trains a recipe to its end, or resumes it; see `resnet_jax.train`."""
    config = recipe if isinstance(recipe, Config) else load_recipe(recipe)
    if overrides:
        config = with_fields(config, overrides)
    name = recipe_name(recipe) if isinstance(recipe, str) else config.model.name
    where: Path | epath.Path = Path("runs") / name
    if workdir is not None:
        where = as_path(workdir) if is_url(workdir) else Path(workdir)
    metrics = run(config, where, Console(quiet=quiet))
    return Result(where, metrics, tuple(read_metrics(where)))
