"""The classes that a checkpoint was trained on, and data whose labels mean the same."""

import csv
import json
from collections.abc import Mapping, Sequence

from resnet_jax.console import print_note
from resnet_jax.data.class_names import are_same, describe_difference, identity, is_number, match_labels
from resnet_jax.data.data_error import DataError
from resnet_jax.data.relabeled import with_other_labels
from resnet_jax.data.source import Source
from resnet_jax.files import as_path
from resnet_jax.training.checkpoints import Checkpoint
from resnet_jax.training.config import Config
from resnet_jax.training.splits import open_split

ClassMap = Mapping[str, str] | str
"""Names of the network's classes by those of the dataset; or `order`: the labels are taken as they are."""

ORDER = "order"


def read_class_map(path: str) -> ClassMap:
    """Reads the file that says which class of a dataset is which class of the network.

    Args:
        path: A JSON object {name: name or label}, or lines `NAME,NETWORK'S NAME OR LABEL` (or with a tab or a
            space in place of the comma). The word `order` stands for no file: the labels are taken as they
            are.

    Raises:
        DataError: There is no such file, or it is neither.
    """
    if path == ORDER:
        return ORDER
    try:
        text = as_path(path).read_bytes().decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            return {str(name): str(target) for name, target in json.loads(text).items()}
        separator = next((mark for mark in ("\t", ",") if mark in text), " ")
        rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if row]
        pairs = {row[0].strip(): separator.join(row[1:]).strip() for row in rows}
    except OSError as error:
        raise DataError(f"class map {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"class map {path} is neither JSON nor lines of text: {error}") from error
    if not pairs or not all(pairs.values()):
        raise DataError(
            f"class map {path} needs two columns: a class of the dataset, and the name or label of the "
            "network's"
        )
    return pairs


def open_labeled_split(
    checkpoint: Checkpoint,
    config: Config,
    split: str,
    *,
    test: bool = False,
    class_map: ClassMap | None = None,
    own_data: bool = True,
) -> Source:
    """Opens a split, with labels that mean what the network of a checkpoint learned.

    Args:
        checkpoint: The network.
        config: Its config, with the data to open.
        split: Name of the split.
        test: Whether it is the test split.
        class_map: Which class of the data is which of the network. Defaults to the names.
        own_data: Whether the data is that of the run, and not another set.

    Returns:
        A source whose `class_names` are all the network's; some may have no example.

    Raises:
        DataError: The data has classes that the network does not know; the difference is listed.
    """
    stored, classes = checkpoint.class_names, checkpoint.model["num_classes"]
    displayed = config.inference.class_names
    source = open_split(config, split, test=test, class_names=stored)
    found = tuple(source.class_names)
    names = displayed or stored
    if class_map == ORDER or names is None or (own_data and displayed and displayed != found):
        if len(found) != classes:
            raise DataError(
                f"split {split} of {config.data.source} has {len(found)} classes, and the network {classes}; "
                "evaluate it on data with the classes that it was trained on, or give --class-map FILE"
            )
        if names is None and not own_data:
            print_note("the names of the network's classes are not known: labels are taken in order")
        return source
    if class_map is None and are_same(names, found):
        return source
    mapping = match_labels(found, names, class_map if isinstance(class_map, Mapping) else None)
    known = [label for label in mapping if label is not None]
    if len(known) < len(mapping) or len(set(known)) < len(known):
        raise DataError(_refusal(config, split, names, found, mapping))
    present = f"{len(known)} of the network's {classes} classes"
    numbered = class_map is None and all(map(is_number, found)) and not set(found) & set(names)
    how = "folders are numbered, and the numbers are taken as labels" if numbered else "matched by name"
    print_note(f"{config.data.source}: {present}, {how}")
    return with_other_labels(source, known, names)


def _refusal(
    config: Config, split: str, names: Sequence[str], found: Sequence[str], mapping: Sequence[int | None]
) -> str:
    unknown = [name for name, label in zip(found, mapping, strict=True) if label is None]
    reason = f"the network does not know {len(unknown)} of its {len(found)} classes"
    if not unknown:
        reason = "several of its classes are the same class of the network"
    if doubled := sorted(name for name in unknown if list(map(identity, names)).count(identity(name)) > 1):
        reason += f"; several classes of the network have the name {doubled[0]!r}"
    shown = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
    return (
        f"split {split} of {config.data.source}: {reason}{': ' if shown else ''}{shown}. The network has "
        f"{', '.join(map(repr, names[:3]))}, … ({len(names)} in all). Rename the folders, or say which "
        "is which with --class-map FILE (`--class-map order` takes the labels as they are)"
    )


def check_same_classes(expected: Sequence[str], found: Sequence[str], *, where: str, advice: str) -> None:
    """Checks that data has the classes that something was trained with, in the same order.

    Args:
        expected: Names by label in training.
        found: Names by label of the data.
        where: What was trained, for the message.
        advice: What the user can do.

    Raises:
        DataError: They differ; the differences are listed.
    """
    if not are_same(expected, found):
        raise DataError(
            f"the classes of the data are not those that {where} was trained with: "
            f"{describe_difference(expected, found)}. {advice}"
        )
