"""The config of a run: typed sections, resolved into a frozen copy; to and from JSON.

`resnet_jax.training.config_sections` declares the fields. Nothing below `resolve` sees text or unchecked
values.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from typing import cast

from resnet_jax.files import JsonObject
from resnet_jax.training.config_fields import (
    ABOVE_ZERO,
    NOT_NEGATIVE,
    ConfigError,
    Field,
    Section,
    one_of,
    recipe,
    section_names,
    unknown_field,
    walk,
)
from resnet_jax.training.config_sections import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
)
from resnet_jax.training.config_uses import DetectionConfig, InferenceConfig, InitialConfig
from resnet_jax.training.field_names import RENAMED, RENAMED_VALUES

FORMAT_VERSION = 2
"""Format of config.json. Format 1 has other names for some fields, and empty values in place of null."""


@dataclasses.dataclass
class Config(Section):
    """Every field of a run. A recipe assigns to the fields that it is about.

    `resolve` checks and freezes them all.
    """

    seed: int = recipe(0, "Seed of initialization, order, augmentation and dropout.", NOT_NEGATIVE)
    batch_size: int = recipe(128, "Global batch size: the sum over all devices.", ABOVE_ZERO)
    task: str = recipe(
        "classification",
        "What is learned: classification, detection, or your own task.",
        one_of("classification", "detection", code=True),
        code=True,
    )
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    initial: InitialConfig = dataclasses.field(default_factory=InitialConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    detection: DetectionConfig = dataclasses.field(default_factory=DetectionConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)


def base_config() -> Config:
    """Returns a config with every field at its default, for a recipe to assign to."""
    return Config()


def resolve(config: Config | Mapping[str, object]) -> Config:
    """Returns a checked, frozen copy of a config; fields that a mapping leaves out have their defaults.

    Raises:
        ConfigError: A field does not exist, has another type or a value that is not allowed, or two
            contradict.
    """
    resolved = Config()
    resolved.update(config)
    for field, value in walk(resolved):
        field.check(value)
    _check_combinations(resolved)
    for section in (resolved, *(getattr(resolved, name) for name in section_names(Config))):
        if isinstance(section, Section):
            section.__dict__["_frozen"] = True
    return resolved


def mutable_copy(config: Config) -> Config:
    """Returns a copy that may be assigned to, to be resolved again."""
    copy = Config()
    copy.update(config)
    return copy


def with_fields(config: Config, values: Mapping[str, object]) -> Config:
    """Returns a resolved copy with other values of the fields at these paths: `{"run.steps": 10}`."""
    changed = mutable_copy(config)
    changed.update_from_flattened_dict(values)
    return resolve(changed)


def with_overrides(config: Config, overrides: Iterable[tuple[str, str]]) -> Config:
    """Returns a resolved copy with values given as text, as on the command line.

    Args:
        config: The config.
        overrides: Pairs of a field's path and the text of its value: ("optimizer.learning_rate", "0.05").
    """
    return with_fields(config, {path: find_field(path).parsed(text) for path, text in overrides})


def parse_override(word: str) -> tuple[str, str]:
    """Returns field and value of `FIELD=VALUE`, or raises ConfigError."""
    field, equals, value = word.partition("=")
    if not equals or not field:
        raise ConfigError(
            f"{word!r} is not a change of a config; write FIELD=VALUE, and lists in brackets: FIELD=(1,2)"
        )
    return field.removeprefix("config."), value


def find_field(path: str) -> Field:
    """Returns the declaration of a field.

    Raises:
        ConfigError: There is none of this path; the closest ones are named.
    """
    fields = all_fields()
    if path in fields:
        return fields[path]
    section: type[Section] | None = Config
    for name in path.split("."):
        if section is None or name not in section_names(section):
            known = section_names(section) if section else ()
            raise unknown_field(path, known, others=fields)
        section = type(value) if isinstance(value := getattr(section(), name), Section) else None
    names = ", ".join(section_names(cast(type[Section], section)))
    raise ConfigError(f"config.{path} is a section; set one of its fields: {names}")


@functools.cache
def all_fields() -> dict[str, Field]:
    """Returns the declarations of all fields by path."""
    return {field.path: field for field, _ in walk(Config())}


def _check_combinations(config: Config) -> None:
    """Checks the fields that depend on each other.

    What depends on data and devices is checked where these are known.
    """
    data, optimizer, run = config.data, config.optimizer, config.run
    least = data.image_size or 1
    if not least <= data.scales[0] <= data.scales[1]:
        raise ConfigError(f"config.data.scales is {data.scales}; it must be two rising sizes from {least} on")
    if data.image_size and data.test_scale < data.image_size:
        raise ConfigError(
            f"config.data.test_scale is {data.test_scale}; it must be image_size {data.image_size} or more"
        )
    inference = config.inference
    if inference.resize and inference.resize < (inference.crop or 0):
        raise ConfigError(f"config.inference.resize is {inference.resize}; it must be inference.crop or more")
    contradictions = {
        "config.initial has a source and from_recipe: choose one": (
            config.initial.source and config.initial.from_recipe
        ),
        "config.run.remat recomputes blocks of a loop, and config.run.scan is no; leave one out": (
            run.remat and run.scan == "no"
        ),
        "config.optimizer has boundaries and a plateau_patience: choose one": (
            optimizer.boundaries and optimizer.plateau_patience
        ),
        "config.optimizer has a schedule, and boundaries or warmup_steps: choose one": (
            optimizer.schedule and (optimizer.boundaries or optimizer.warmup_steps)
        ),
        "config.optimizer has a loss of its own and label_smoothing, for cross-entropy; leave one out": (
            optimizer.loss and optimizer.label_smoothing
        ),
        "config.optimizer has warmup_steps and warmup_until_error: choose one": (
            optimizer.warmup_until_error and optimizer.warmup_steps
        ),
    }
    for message, found in contradictions.items():
        if found:
            raise ConfigError(message)


def names_code(config: Config) -> bool:
    """Tells whether the config names functions or classes of modules."""
    return any(field.code and isinstance(value, str) and ":" in value for field, value in walk(config))


def to_json(config: Config) -> JsonObject:
    """Returns a config as nested JSON: tuples become lists."""
    return cast(JsonObject, json.loads(json.dumps(dataclasses.asdict(config))))


def from_json(stored: JsonObject) -> Config:
    """Returns a stored config, of this format or an older one, resolved.

    Raises:
        ConfigError: It has a field that this version does not know, or a value that is not allowed.
    """
    values = {}
    for path, value in _flatten(stored).items():
        name = RENAMED.get(path, path)
        values[name] = RENAMED_VALUES.get((name, value), value) if isinstance(value, str) else value
    config = Config()
    config.update_from_flattened_dict(values)
    return resolve(config)


def _flatten(tree: JsonObject, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def flat_fields(config: Config) -> dict[str, object]:
    """Returns the values of all fields by path, for example `optimizer.learning_rate`."""
    return {field.path: value for field, value in walk(config)}


def recipe_differences(old: Config, new: Config) -> list[str]:
    """Returns a line for each recipe field that differs: `optimizer.learning_rate: 0.1 -> 0.2`."""
    after = flat_fields(new)
    return sorted(
        f"{field.path}: {value} -> {after[field.path]}"
        for field, value in walk(old)
        if field.kind == "recipe" and value != after[field.path]
    )
