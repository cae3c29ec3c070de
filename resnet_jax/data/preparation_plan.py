"""What a prepared set was made of: a digest of its source and options, and the comparison with the source."""

import hashlib
import json
import os
from collections.abc import Callable

from etils import epath

from resnet_jax.data.class_names import describe_difference
from resnet_jax.data.data_error import DataError
from resnet_jax.data.encoded import Examples, Payload
from resnet_jax.data.prepared import SET_FORMAT, Manifest, open_prepared
from resnet_jax.data.shards import pack

_PREPARE_ELSEWHERE = "choose another DEST, or delete it and prepare again"


def plan_of(splits: dict[str, Examples], options: dict[str, float], shard_examples: int) -> str:
    """Returns a digest of the options and of class, name, size and modification time of every image."""
    digest = hashlib.sha256(json.dumps([SET_FORMAT, "stamps", options, shard_examples]).encode())
    for name, examples in splits.items():
        digest.update(f"{name} {len(examples)} {list(examples.class_names)}".encode(errors="surrogateescape"))
        for index in range(len(examples)):
            digest.update(f"{examples.stamp(index)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def plan_without_stamps(splits: dict[str, Examples], options: dict[str, float], shard_examples: int) -> str:
    """Returns the digest that earlier versions wrote, of the names of classes and files alone."""
    digest = hashlib.sha256(json.dumps([SET_FORMAT, options, shard_examples]).encode())
    for name, examples in splits.items():
        digest.update(f"{name} {len(examples)} {list(examples.class_names)}".encode(errors="surrogateescape"))
        for index in range(len(examples)):
            digest.update(os.path.basename(examples.describe(index)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def compare_records(
    dest: str,
    manifest: Manifest,
    splits: dict[str, Examples],
    stored: Callable[[Payload, int], Payload] | None,
) -> None:
    """Checks that a prepared set has the labels of a source and, given what is stored of it, its contents.

    Raises:
        DataError: Splits, classes, a label or an image differ.
    """
    held = {name: split["examples"] for name, split in manifest["splits"].items()}
    wanted = {name: len(examples) for name, examples in splits.items()}
    if held != wanted:
        raise DataError(f"{dest} holds {held} images, and the source {wanted}; {_PREPARE_ELSEWHERE}")
    for name, examples in splits.items():
        if list(examples.class_names) != manifest["class_names"]:
            difference = describe_difference(manifest["class_names"], examples.class_names)
            raise DataError(
                f"the classes of the source are not those of {dest}: {difference}; {_PREPARE_ELSEWHERE}"
            )
        prepared = open_prepared(dest, name)
        for index in range(len(examples)):
            payload, label = prepared.read(index)
            if label != examples.label(index):
                raise DataError(
                    f"{examples.describe(index)} is {examples.class_names[examples.label(index)]!r}, and "
                    f"{dest} holds it as {examples.class_names[label]!r}; {_PREPARE_ELSEWHERE}"
                )
            if stored and pack(stored(examples.read(index)[0], index), label) != pack(payload, label):
                raise DataError(
                    f"{examples.describe(index)} is not what {dest} holds of it; {_PREPARE_ELSEWHERE}"
                )


def other_source(directory: epath.Path) -> DataError:
    """Returns the error of a destination that holds what another preparation wrote."""
    return DataError(
        f"{directory} holds a set of another source, of one that has changed since (class, name, size or "
        f"time of a file), or with other options; {_PREPARE_ELSEWHERE}. If only times have changed, "
        "--verify-contents compares the images and accepts the set"
    )
