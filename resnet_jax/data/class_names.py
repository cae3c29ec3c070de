"""Names of classes: their order, and which of them mean the same class."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

_WORDNET = re.compile(r"n\d{8}(?!\d)")
_SHOWN = 6  # Differences that a message lists.


def in_order(names: Iterable[str]) -> list[str]:
    """Returns names in the order of labels: as numbers if all of them are, else as text.

    Example:
        >>> in_order(["10", "2", "1"])
        ['1', '2', '10']
    """
    names = list(names)
    if all(is_number(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def is_number(name: str) -> bool:
    """Returns whether a name is written in the digits 0 to 9 alone."""
    return name.isascii() and name.isdigit()


def normalized(name: str) -> str:
    """Returns a name in Unicode's composed form NFC; macOS stores file names in the decomposed one."""
    return unicodedata.normalize("NFC", name)


def identity(name: str) -> str:
    """Returns what two names of one class have in common: the WordNet id that they begin with, or the name.

    Example:
        >>> identity("n01440764_tench") == identity("n01440764")
        True
    """
    found = _WORDNET.match(name)
    return found[0] if found else normalized(name)


def are_same(first: Sequence[str], second: Sequence[str]) -> bool:
    """Returns whether two lists name the same classes in the same order."""
    return list(map(identity, first)) == list(map(identity, second))


def describe_difference(expected: Sequence[str], found: Sequence[str]) -> str:
    """Returns how two lists of class names differ, in a few words.

    Args:
        expected: Names that the network was trained with, by label.
        found: Names of the data, by label.

    Example:
        >>> describe_difference(["ant", "bee", "cat"], ["bee", "cat", "zant"])
        "'ant' is missing; 'zant' is new; 'bee' has label 0 instead of 1; 'cat' has label 1 instead of 2"
    """
    before = {identity(name): label for label, name in enumerate(expected)}
    after = {identity(name): label for label, name in enumerate(found)}
    parts = [f"{name!r} is missing" for name in expected if identity(name) not in after]
    parts += [f"{name!r} is new" for name in found if identity(name) not in before]
    parts += [
        f"{name!r} has label {after[identity(name)]} instead of {label}"
        for label, name in enumerate(expected)
        if after.get(identity(name), label) != label
    ]
    more = f"; and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return "; ".join(parts[:_SHOWN]) + more


def match_labels(
    found: Sequence[str], expected: Sequence[str], class_map: Mapping[str, str] | None = None
) -> list[int | None]:
    """Returns the network's label of each class of a dataset; None for a class that it does not know.

    Args:
        found: Names of the dataset's classes, by label.
        expected: Names of the network's classes, by label.
        class_map: The network's name, or label as text, of a dataset's class. Classes that it leaves out are
            matched by name.

    Classes match by name or WordNet id. If no class does and the dataset's names are all numbers, they are
    the network's labels, as in ImageNetV2.

    Example:
        >>> match_labels(["n02", "n01"], ["n01", "n02", "n03"])
        [1, 0]
    """
    labels = {identity(name): label for label, name in enumerate(expected)}
    synonyms = {identity(name.split(",")[0].strip()): label for label, name in enumerate(expected)}
    known = {**synonyms, **labels}

    def label_of(name: str) -> int | None:
        if identity(name) in known:
            return known[identity(name)]
        if is_number(name) and int(name) < len(expected):
            return int(name)
        return known.get(identity(name.split(",")[0].strip()))

    if class_map is not None:
        mapped = {normalized(name): target for name, target in class_map.items()}
        named = [mapped.get(normalized(name), name) for name in found]
        return [label_of(name) for name in named]
    by_name = [known.get(identity(name)) for name in found]
    if all(label is None for label in by_name) and all(map(is_number, found)):
        return [int(name) if int(name) < len(expected) else None for name in found]
    return by_name
