"""Names of classes: their order, and which of them mean the same class."""

import re
import unicodedata
from collections import Counter
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

    Classes match by name, WordNet id or, as in "tench, Tinca tinca", by the first of several names; a name
    that two of the network's classes have, such as ImageNet's "crane", matches neither. If no class matches
    and the dataset's names are all numbers, they are the network's labels, as in ImageNetV2.

    Example:
        >>> match_labels(["n02", "n01"], ["n01", "n02", "n03"])
        [1, 0]
    """
    known = {**_labels(map(_first_name, expected)), **_labels(map(identity, expected))}

    def by_name(name: str) -> int | None:
        return known.get(identity(name), known.get(_first_name(name)))

    def by_number(name: str) -> int | None:
        return int(name) if is_number(name) and int(name) < len(expected) else None

    if class_map is not None:
        mapped = {normalized(name): target for name, target in class_map.items()}
        targets = [mapped.get(normalized(name)) for name in found]
        return [
            by_name(name) if target is None else _either(by_name(target), by_number(target))
            for name, target in zip(found, targets, strict=True)
        ]
    matched = [by_name(name) for name in found]
    if all(label is None for label in matched) and all(map(is_number, found)):
        return [by_number(name) for name in found]
    return matched


def _either(first: int | None, second: int | None) -> int | None:
    return second if first is None else first


def _first_name(name: str) -> str:
    return identity(name.split(",")[0].strip())


def _labels(names: Iterable[str]) -> dict[str, int]:
    """Returns the label of each name that only one class has."""
    names = list(names)
    counts = Counter(names)
    return {name: label for label, name in enumerate(names) if counts[name] == 1}
