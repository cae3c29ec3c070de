"""What is compared: configs, each with its own changes, as a person writes them in one word."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from resnet_jax.sweeps.scaled_recipes import scale_steps
from resnet_jax.training.config import Config, flat_fields, parse_override, with_fields
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.recipes import load_recipe

DATA_FIELDS = (
    "data.source",
    "data.train_split",
    "data.test_split",
    "data.labels",
    "data.synthetic_examples",
    "data.synthetic_image_size",
    "data.synthetic_classes",
)
"""Fields that say which set a net learns and is tested on."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A config that is compared with others.

    Attributes:
        name: Name in the table and the figure, and of its directory.
        text: The request as it was written, without the name.
        config: Resolved config; its seed is the first one that is trained.
    """

    name: str
    text: str
    config: Config

    @property
    def directory(self) -> str:
        """The name without what a file system or a shell might stumble over."""
        return re.sub(r"[^\w.=+-]+", "_", self.name).strip("_.") or "config"

    def with_seed(self, number: int) -> Config:
        """Returns the config of the run of that number, from 0."""
        return with_fields(self.config, {"seed": self.config.seed + number})


def parse_entry(text: str, *, common: Iterable[tuple[str, str]] = (), budget: float = 1.0) -> Entry:
    """Returns what `[NAME=]CONFIG[,FIELD=VALUE…]` means.

    CONFIG is a name or a path as for `--config`, what follows a colon included: `cifar10:resnet20,cifar100`.
    The changes begin at the first word with an equals sign. Commas within brackets part nothing:
    `digits_resnet20,optimizer.boundaries=(100,200)`.

    Args:
        text: See above.
        common: Changes that come before those of the text.
        budget: Factor of the steps, see `scale_steps`.

    Raises:
        ConfigError: The recipe or a field does not exist, or a value is not allowed.

    Example:
        >>> parse_entry("plain-20=digits_resnet20,model.name=cifar_plain20").config.model.name
        'cifar_plain20'
    """
    words = _split(text)
    name, equals, first = words[0].partition("=")
    if not equals or Path(words[0]).is_file():
        name, first = "", words[0]
    count = next((number for number, word in enumerate(words) if number and "=" in word), len(words))
    overrides = [parse_override(word) for word in words[count:]]
    spec = ",".join([first, *words[1:count]])
    config = scale_steps(load_recipe(spec, [*common, *overrides]), budget)
    asked = ",".join([spec, *words[count:]])
    return Entry(name or asked, asked, config)


def check_comparable(entries: Sequence[Entry], *, any_data: bool = False) -> None:
    """Checks that configs can be compared in one table.

    Raises:
        ConfigError: There are none, two have one name, one is no classification, their data differ, or some
            compute in float64 and others do not.
    """
    if not entries:
        raise ConfigError("there is nothing to compare; name one config or more")
    places = [entry.directory for entry in entries]
    twice = next((entry.name for entry in entries if places.count(entry.directory) > 1), None)
    if twice:
        raise ConfigError(f"two configs are called {twice!r}; give them names: NAME={entries[0].text}")
    other_task = next((entry for entry in entries if entry.config.task != "classification"), None)
    if other_task:
        raise ConfigError(
            f"{other_task.name} has the task {other_task.config.task}; only classification can be compared"
        )
    first = entries[0]
    for entry in entries[1:]:
        one, other = flat_fields(first.config), flat_fields(entry.config)
        differing = [
            f"{name} {one[name]!r} and {other[name]!r}" for name in DATA_FIELDS if one[name] != other[name]
        ]
        if differing and not any_data:
            raise ConfigError(
                f"{first.name} and {entry.name} are of different data: {'; '.join(differing)}; "
                "errors on different data say little of nets, with --any-data they are compared all the same"
            )
        dtypes = first.config.model.dtype, entry.config.model.dtype
        if "float64" in dtypes and dtypes[0] != dtypes[1]:
            raise ConfigError(
                f"{first.name} computes in {dtypes[0]} and {entry.name} in {dtypes[1]}; "
                "float64 is a setting of the whole process: compare them in two commands"
            )


def _split(text: str) -> list[str]:
    """Returns the words between commas that are outside brackets and quotes."""
    words, depth, quote = [""], 0, ""
    for character in text:
        if quote or character in "'\"":
            quote = "" if character == quote else quote or character
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth and not quote:
            words.append("")
        else:
            words[-1] += character
    return words
