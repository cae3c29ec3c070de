"""Declared config fields: each states its type, default, meaning, allowed values and kind in one place.

A section is a dataclass whose fields are declared with `recipe`, if another value makes another experiment,
or with `operation`, if it may change when a run is resumed. Assigning to a field checks its type, so that a
mistake in a recipe file is reported at the line that makes it.
"""

import ast
import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, TypeVar

from resnet_jax.errors import UsageError
from resnet_jax.files import expand_home
from resnet_jax.training.field_names import RENAMED, RENAMED_VALUES, USUAL_NAMES

T = TypeVar("T")


class ConfigError(UsageError, ValueError):
    """A field of a config, or two that contradict each other.

    The message names field, value and what is allowed.
    """


class Allowed(NamedTuple):
    """The values that a field may have.

    A predicate, and the words for an error message and the documentation.
    """

    holds: Callable[[typing.Any], bool]
    text: str


ABOVE_ZERO = Allowed(lambda value: value > 0, "a number above 0")
NOT_NEGATIVE = Allowed(lambda value: value >= 0, "0 or more")
BELOW_ONE = Allowed(lambda value: 0 <= value < 1, "0 or more and less than 1")
FACTOR_BELOW_ONE = Allowed(lambda value: 0 < value < 1, "between 0 and 1")
RISING_STEPS = Allowed(
    lambda steps: all(before < after for before, after in zip((0, *steps), steps, strict=False)),
    "rising steps above 0",
)


def one_of(*values: str, code: bool = False) -> Allowed:
    """Returns the check that a value is one of these words, or with `code` names a function of a module."""
    text = f"one of {', '.join(values)}" + (", or package.module:function" if code else "")
    return Allowed(lambda value: value in values or (code and ":" in value), text)


def recipe(default: T, meaning: str, allowed: Allowed | None = None, *, code: bool = False) -> T:
    """Declares a field that makes another experiment of a run.

    Args:
        default: Its default.
        meaning: What it is, in a sentence.
        allowed: The values that it may have besides None; by default all of its type.
        code: Whether it may name code, `package.module:function`.
    """
    metadata = {"kind": "recipe", "meaning": meaning, "allowed": allowed, "code": code}
    return dataclasses.field(default=default, metadata=metadata)


def operation(default: T, meaning: str, allowed: Allowed | None = None) -> T:
    """Declares a field that only says how a run is carried out; see `recipe` for the arguments."""
    metadata = {"kind": "operation", "meaning": meaning, "allowed": allowed, "code": False}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Field:
    """A declared field.

    Attributes:
        path: Its path in the config, such as `optimizer.learning_rate`.
        kind: "recipe" or "operation".
        holds: Type of its value: bool, int, float, str or tuple.
        items: Type of a tuple's items.
        length: Number of a tuple's items; None is any.
        optional: Whether it may be None.
        default: Its default.
        meaning: What it is, in a sentence.
        allowed: The values that it may have.
        code: Whether it may name code, `package.module:function`.
    """

    path: str
    kind: str
    holds: type
    items: type
    length: int | None
    optional: bool
    default: object
    meaning: str
    allowed: Allowed | None
    code: bool

    @property
    def type_text(self) -> str:
        """The type in words."""
        example = "('a','b')" if self.items is str else "(100,200)"
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        text = words.get(self.holds) or f"a list such as {self.default or example}"
        return f"{text}, or None" if self.optional else text

    def coerced(self, value: object, shown: object = None) -> object:
        """Returns a value as this field holds it: a float for an integer, a tuple for a list.

        Values that stood for "not set" in config format 1 (an empty text, 0, an empty list) become None where
        the field may be None.

        Raises:
            ConfigError: It has another type, or is spelled in another way since.
        """
        if isinstance(value, str) and (self.path, value) in RENAMED_VALUES:
            raise ConfigError(f"config.{self.path} {value!r} is now {RENAMED_VALUES[self.path, value]!r}")
        if self.optional and not isinstance(value, bool) and (value is None or value in ("", 0, (), [])):
            return None
        if self.holds is tuple and isinstance(value, (list, tuple)):
            items = tuple(_coerced_to(self.items, item) for item in value)
            if None not in items and self.length in (None, len(items)):
                return items
        elif (converted := _coerced_to(self.holds, value)) is not None:
            return converted
        given = repr(value) if shown is None else repr(shown)
        raise ConfigError(f"config.{self.path} is {given}; it must be {self.type_text}")

    def parsed(self, text: str) -> object:
        """Returns the value that a text on the command line stands for: a Python literal or a bare word."""
        if self.holds is str:
            return self.coerced(None if self.optional and text == "None" else text)
        if self.holds is tuple and self.items is str and self.length is None and _is_word(text):
            return self.coerced((text,))
        word = {"true": "True", "false": "False"}.get(text.lower(), text) if self.holds is bool else text
        try:
            return self.coerced(ast.literal_eval(word), shown=text)
        except (ValueError, SyntaxError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            return self.coerced(text)

    def check(self, value: object) -> None:
        """Raises ConfigError unless the value is allowed."""
        if value is not None and self.allowed and not self.allowed.holds(value):
            raise ConfigError(f"config.{self.path} is {value!r}; it must be {self.allowed.text}")


def _is_word(text: str) -> bool:
    """Returns whether a text is one bare word, such as the name of a variant, and no literal of Python."""
    return bool(text) and text not in ("None", "()") and text[0] not in "([{'\""


def _coerced_to(kind: type, value: object) -> object:
    """Returns a value of the type, or None where the given one is of another."""
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, str):
        return expand_home(value)
    return value if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) else None


class Section:
    """Base of the sections of a config: checked assignment, by attribute or by name in brackets."""

    prefix: ClassVar[str] = ""
    """Path of the section, with a dot at its end."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in section_names(type(self)):
            raise unknown_field(self.prefix + name, section_names(type(self)))
        if "_frozen" in self.__dict__:
            raise ConfigError(
                f"config.{self.prefix}{name} cannot be set: a resolved config is frozen; with_fields() "
                "returns a changed one"
            )
        field = section_fields(type(self)).get(name)
        if field is not None:
            object.__setattr__(self, name, field.coerced(value))
        elif name in self.__dict__:
            getattr(self, name).update(value)
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> typing.NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise unknown_field(self.prefix + name, section_names(type(self)))

    def __getitem__(self, name: str) -> object:
        return getattr(self, name)

    def __setitem__(self, name: str, value: object) -> None:
        setattr(self, name, value)

    def update(self, values: object) -> None:
        """Sets the fields that a nested mapping or another section has; others stay.

        Raises:
            ConfigError: A name does not exist, or a value has another type.
        """
        names = section_names(type(self))
        if isinstance(values, Section):
            values = {name: getattr(values, name) for name in section_names(type(values))}
        if not hasattr(values, "items"):
            name = self.prefix.rstrip(".")
            raise ConfigError(f"config.{name} is a section; set one of its fields: {', '.join(names)}")
        for name, value in typing.cast(Mapping[str, object], values).items():
            setattr(self, name, value)

    def update_from_flattened_dict(self, values: Mapping[str, object]) -> None:
        """Sets fields by their paths: `{"optimizer.learning_rate": 0.05}`."""
        for path, value in values.items():
            *parents, name = path.split(".")
            setattr(functools.reduce(getattr, parents, self), name, value)


def section_names(section: type[Section]) -> tuple[str, ...]:
    """Returns the names of a section's fields and sub-sections, as declared."""
    return tuple(section.__annotations__)


_DECLARED: dict[type[Section], dict[str, Field]] = {}


def section_fields(section: type[Section]) -> dict[str, Field]:
    """Returns the declared fields of a section by name, without its sub-sections."""
    if section not in _DECLARED:
        hints = typing.get_type_hints(section)
        declared = [one for one in dataclasses.fields(typing.cast(type, section)) if one.metadata]
        _DECLARED[section] = {
            one.name: _declared(section.prefix + one.name, hints[one.name], one) for one in declared
        }
    return _DECLARED[section]


def _declared(path: str, hint: object, declared: "dataclasses.Field[object]") -> Field:
    options = [one for one in typing.get_args(hint) if one is not types.NoneType]
    optional = isinstance(hint, types.UnionType)
    kind = typing.cast(type, options[0] if optional else hint)
    items = typing.get_args(kind)
    return Field(
        path,
        holds=typing.get_origin(kind) or kind,
        items=items[0] if items else str,
        length=len(items) if items and items[-1] is not ... else None,
        optional=optional,
        default=declared.default,
        **declared.metadata,
    )


def unknown_field(path: str, known: Sequence[str], others: Iterable[str] = ()) -> ConfigError:
    """Returns the error for a field that does not exist, with its new name or the closest names."""
    if path in RENAMED:
        return ConfigError(f"config.{path} is now config.{RENAMED[path]}")
    if (usual := USUAL_NAMES.get(path.rpartition(".")[2])) is not None:
        return ConfigError(f"config.{path} does not exist; did you mean config.{usual}?")
    close = difflib.get_close_matches(path.rpartition(".")[2], known, 2)
    close = close or [one for one in others if one.rpartition(".")[2] == path.rpartition(".")[2]]
    close = close or difflib.get_close_matches(path, list(others), 2)
    suggestion = f"did you mean {' or '.join(close)}? " if close else ""
    return ConfigError(f"config.{path} does not exist; {suggestion}allowed are {', '.join(known) or 'none'}")


def walk(section: Section) -> Iterator[tuple[Field, object]]:
    """Yields every field of a section and of those in it, with its value."""
    fields = section_fields(type(section))
    for name in section_names(type(section)):
        if name in fields:
            yield fields[name], getattr(section, name)
        else:
            yield from walk(typing.cast(Section, getattr(section, name)))
