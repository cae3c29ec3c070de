"""Recipes: found by name or path, loaded, and changed by `--config.FIELD=VALUE`."""

import difflib
import importlib.util
import math
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from resnet_jax.console import print_note
from resnet_jax.errors import ResNetError
from resnet_jax.files import expand_home
from resnet_jax.training.config import Config, flat_fields, names_code, resolve, with_fields, with_overrides
from resnet_jax.training.config_fields import ConfigError

DEFAULT = "digits_resnet20"


def recipes() -> dict[str, Path]:
    """Returns the recipes that come with the package, by name.

    From the wheel, or from the checkout that is installed.
    """
    package = Path(__file__).parents[1]
    folder = next(
        (path for path in (package / "configs", package.parent / "configs") if path.is_dir()), package
    )
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))} if folder != package else {}


def load_recipe(spec: str, overrides: Iterable[tuple[str, str]] = ()) -> Config:
    """Returns the whole config of a recipe, checked, with the overrides applied.

    Args:
        spec: A name of `recipes()`, or the path of a file with `get_config()`; what follows a colon is its
            argument.
        overrides: Pairs of a field's path and the text of its value: ("optimizer.learning_rate", "0.05").

    Raises:
        ConfigError: There is no such recipe or field, a value has the wrong type or is not allowed, or the
            file is broken.

    Example:
        >>> load_recipe("digits_resnet20", [("seed", "1")]).seed
        1
    """
    name, argument = _parts(spec)
    module = _import(_find(name))
    try:
        config = resolve(module.get_config(*([argument] if argument else [])))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    except ResNetError:
        raise
    except Exception as error:  # The recipe is the user's code and may raise anything.
        raise ConfigError(
            f"{name}: get_config({argument!r}) raised {type(error).__name__}: {error}"
        ) from error
    overrides = list(overrides)
    config = with_overrides(config, overrides)
    config = _fitted(module, config, name, frozenset(path for path, _ in overrides))
    if not names_code(config):
        return config
    from resnet_jax.models.trusted_code import trust  # Here, so that printing a config is quick.

    trust(flat_fields(config).values())
    if config.run.code_dir is None:
        config = with_fields(config, {"run.code_dir": str(_code_directory(name))})
    return config


def _fitted(module: ModuleType, config: Config, name: str, given: frozenset[str]) -> Config:
    """Returns the config as the recipe fits it to its data, and with the steps that `run.epochs` makes."""
    if hasattr(module, "fit_to_data"):
        before, config = config, module.fit_to_data(config, given)
        if config != before:
            from resnet_jax.training.own_images import explicit_command

            command = explicit_command(config, name, resolve(module.get_config()))
            print_note(f"chosen for these images; the same as\n  {command}")
    if config.run.epochs is None or "run.steps" in given:
        return config
    from resnet_jax.training.splits import open_split

    per_epoch = len(open_split(config, config.data.train_split)) / config.batch_size
    steps = max(1, math.ceil(config.run.epochs * per_epoch))
    values: dict[str, object] = {"run.steps": steps}
    if "optimizer.boundaries" not in given:
        scaled = {max(1, step * steps // config.run.steps) for step in config.optimizer.boundaries}
        values["optimizer.boundaries"] = tuple(sorted(scaled))
    print_note(f"{config.run.epochs:g} epochs are {steps} steps of {config.batch_size} images")
    return with_fields(config, values)


def recipe_name(spec: str) -> str:
    """Returns a name for the workdir of a recipe.

    `cifar10:resnet110` → `cifar10_resnet110`, `finetune:runs/a` → `finetune_a`.
    """
    name, argument = _parts(spec)
    return Path(name).stem + (f"_{Path(argument).name}" if argument else "")


def _parts(spec: str) -> tuple[str, str]:
    """Returns the name and the argument of `NAME:ARGUMENT`, with home directories in place of `~`."""
    name, _, argument = spec.partition(":")
    return expand_home(name), expand_home(argument)


def _code_directory(name: str) -> Path:
    """Returns where modules that a recipe names are looked for.

    Beside it, or here where it is one that comes with the package.
    """
    path = _find(name)
    return (Path() if path in recipes().values() else path.parent).absolute()


def _find(name: str) -> Path:
    known = recipes()
    path = Path(name)
    if path.is_file():
        return path
    if path.stem in known and str(path.parent) in (".", "configs"):
        return known[path.stem]
    close = difflib.get_close_matches(path.stem, known, 1)
    suggestion = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(
        f"there is no config {name!r}; {suggestion}allowed are {', '.join(known)}, or give the path of a file"
    )


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; a recipe is one with a function get_config()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # As above.
        raise ConfigError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError(f"{path} has no function get_config(); see configs/{DEFAULT}.py for an example")
    return module
