"""Functions and classes by name, "package.module:function", as a config and a checkpoint store them.

A name may give arguments, which are Python's literals: "my_parts:Block(ratio=2)". The module is looked for
where Python looks, in the directory that is given, which is that of the config, and in the current one.
"""

import ast
import contextlib
import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any, TypeGuard

from resnet_jax.errors import ResNetError
from resnet_jax.models.layers import ModelError

IMPORT_NAME = re.compile(
    r"(?P<module>[A-Za-z_][\w.]*):(?P<object>[A-Za-z_][\w.]*)(?P<arguments>\(.*\))?", re.DOTALL
)
IMPORT_FORM = "package.module:name, with arguments where there are any: my_parts:Block(ratio=2)"


def is_import_name(value: object) -> TypeGuard[str]:
    """Tells whether a value is such a name; of the named options of this package none has a colon."""
    return isinstance(value, str) and ":" in value


def import_by_name(value: object, *, field: str, directory: str | None = None) -> Any:
    """Returns what a name means, with its arguments bound; any other value as it is.

    Its module is imported, which runs it: names come from a config or a checkpoint that the user trusts.

    Args:
        value: A name or anything else.
        field: Field of the config, for messages.
        directory: Searched before the current directory. Both are searched, and stay on Python's path, only
            if the module is not found without them: a file beside the user that bears a library's name is
            never imported on the way.

    Raises:
        ModelError: The name has another form, or what it means cannot be imported or called.
    """
    if not is_import_name(value):
        return value
    match = IMPORT_NAME.fullmatch(value.strip())
    if not match:
        raise ModelError(f"{field} is {value!r}; the form is {IMPORT_FORM}")
    found = _attribute(_module(match["module"], value, field, directory), match["object"], value, field)
    if not callable(found):
        raise ModelError(
            f"{field} is {value!r}, which is a {type(found).__name__}; it must be a function or a class"
        )
    arguments = _arguments(match["arguments"] or "()", value, field)
    return partial(found, **arguments) if arguments else found


@contextlib.contextmanager
def calling(value: object, function: object, *, field: str, form: str) -> Iterator[None]:
    """Turns whatever the user's function raises in the block into one line: the field, and how it is called.

    Args:
        value: What the config says; anything but a name of code is let through.
        function: What it means, whose signature is shown; None shows none.
        field: Field of the config.
        form: How it is called, such as "loss(logits [n, classes], labels int32 [n]) -> [n]".

    Raises:
        ModelError: The block raised anything that is not an error of this package.
    """
    try:
        yield
    except ResNetError:
        raise
    except Exception as error:  # The user's code may raise anything.
        if not is_import_name(value):
            raise
        text = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{field} is {value!r}, which is called as {form}{_signature(function)}; it raised "
            f"{type(error).__name__}: {text}"
        ) from error


def _signature(function: object) -> str:
    function = getattr(function, "func", function)
    try:
        if not callable(function):
            return ""
        parameters = inspect.signature(function).parameters.values()
        named = ", ".join(str(one.replace(annotation=inspect.Parameter.empty)) for one in parameters)
        return f", and has the signature ({named})"
    except (TypeError, ValueError):
        return ""


def _module(name: str, value: str, field: str, directory: str | None) -> ModuleType:
    places = list(dict.fromkeys(os.path.abspath(place) for place in (directory, ".") if place))
    try:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
        sys.path += [place for place in places if place not in sys.path]
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise ModelError(
                f"{field} is {value!r}, and {name} needs the module {error.name!r}, which is not installed"
            ) from error
        raise ModelError(
            f"{field} is {value!r}, and there is no module {error.name!r}: looked in {', '.join(places)} and "
            f"on Python's path; put {name.partition('.')[0]}.py into one of them, install its package, or "
            "set PYTHONPATH or --config.run.code_dir"
        ) from error
    except Exception as error:  # The module is the user's code and may raise anything.
        raise ModelError(
            f"{field} is {value!r}, and importing {name} raised {type(error).__name__}: {error}"
        ) from error


def _attribute(module: ModuleType, path: str, value: str, field: str) -> object:
    found: object = module
    for part in path.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(
                part, [name for name in dir(found) if not name.startswith("_")], 1
            )
            where = getattr(module, "__file__", None) or module.__name__
            raise ModelError(
                f"{field} is {value!r}, and {where} has no {part!r}"
                + (f"; did you mean {close[0]}?" if close else "")
            )
        found = getattr(found, part)
    return found


def _arguments(text: str, value: str, field: str) -> dict[str, object]:
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not all(keyword.arg for keyword in call.keywords):
            raise ValueError("not keywords alone")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ModelError(
            f"{field} is {value!r}; its arguments must be names with literals, as in {IMPORT_FORM}"
        ) from error
