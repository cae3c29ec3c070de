"""Opens a split of a data set by the set's name."""

import functools
import os
import sys
from collections.abc import Sequence

from etils import epath

from resnet_jax.data.choices import DIGITS, PHOTO_DIGITS, SYNTHETIC
from resnet_jax.data.class_names import are_same, describe_difference
from resnet_jax.data.data_error import DataError
from resnet_jax.data.encoded import DecodeOptions, Examples
from resnet_jax.data.folder import open_folder
from resnet_jax.data.prepared import is_prepared, open_prepared
from resnet_jax.data.scenes import open_single_digits
from resnet_jax.data.source import Source, SyntheticSource
from resnet_jax.files import expand_home


def open_source(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    synthetic: SyntheticSource | None = None,
    decoding: DecodeOptions | None = None,
    class_names: Sequence[str] | None = None,
) -> Source:
    """Opens a split, and prepares the set first where that is needed.

    Args:
        name: "digits" or "photo_digits", embedded sets; "synthetic"; a folder or URL that holds an image
            folder (SPLIT/CLASS/NAME.jpg) or what `resnet-jax prepare` wrote; or the name of a set of
            TFDS with the features `image` and `label`.
        split: A folder's name, or in TFDS's notation, for example "train" or "train[:45000]".
        data_dir: Directory of TFDS datasets; None is the environment's TFDS_DATA_DIR, or
            ~/tensorflow_datasets.
        synthetic: What to return for the name "synthetic".
        decoding: How images of any size are decoded; None reads a TFDS set whose images are of one size into
            memory.
        class_names: Names by label that a run was trained with; see `open_folder`.

    Raises:
        DataError: There is no such set or split, or it cannot be prepared; the message says which command
            fixes it.
    """
    if name == SYNTHETIC:
        if synthetic is None:
            raise DataError("a synthetic source needs its number of examples, image size and classes")
        return synthetic
    if name == PHOTO_DIGITS:
        return open_single_digits(split)
    if decoding is not None:
        return decoding.source(open_encoded(name, split, data_dir=data_dir, class_names=class_names))
    if is_path(name):
        _check_folder(name)
        raise DataError(
            f"the images of {name} are of any size: set --config.data.image_size, for example to 224"
        )
    from resnet_jax.data.tfds_sets import read_whole  # Here: other sources need not wait for TFDS.

    return read_whole(name, split, data_dir)


def open_encoded(
    name: str, split: str, *, data_dir: str | None = None, class_names: Sequence[str] | None = None
) -> Examples:
    """Opens a split of encoded images; see `open_source` for the arguments and what is raised."""
    if not is_path(name):
        from resnet_jax.data.tfds_sets import open_tfds  # Here: other sources need not wait for TFDS.

        return open_tfds(name, split, data_dir)
    root = _check_folder(name)
    if is_prepared(root):
        return open_prepared(root, split)
    return open_folder(root, split, class_names=class_names)


def _check_folder(name: str) -> str:
    root = expand_home(name)
    if not epath.Path(root).is_dir():
        raise DataError(
            f"there is no folder {name}; config.data.source is one with images or what `resnet-jax prepare` "
            "wrote"
        )
    return root


def is_path(name: str) -> bool:
    """Returns whether a source's name is a folder: a URL, a path by its form, or a folder that exists.

    A bare word that names a set of TFDS means that set, also where a folder of this name is there; it is said
    once.
    """
    return name not in (DIGITS, PHOTO_DIGITS, SYNTHETIC) and (
        "://" in name or name.startswith(("/", ".", "~")) or (os.path.isdir(name) and not _is_tfds_too(name))
    )


@functools.cache
def _is_tfds_too(name: str) -> bool:
    import tensorflow_datasets as tfds  # Here: other sources need not wait for TFDS.

    if name not in tfds.list_builders(with_community_datasets=False):
        return False
    print(
        f"resnet-jax: {name} is taken for the set of TFDS; the folder of this name is ./{name}",
        file=sys.stderr,
    )
    return True


def check_prepared(name: str | None, data_dir: str | None) -> None:
    """Checks that a set can be read without downloading or preparing anything.

    Raises:
        DataError: It cannot.
    """
    if name is None or name in (PHOTO_DIGITS, SYNTHETIC) or is_path(name):
        return
    from resnet_jax.data.tfds_sets import is_tfds_prepared  # Here: other sources need not wait for TFDS.

    if not is_tfds_prepared(name, data_dir):
        raise DataError(f"{name} is not prepared")


def check_classes(train: Source | Examples, test: Source | Examples) -> None:
    """Checks that two splits have the same classes, so that a label means the same in both.

    Raises:
        DataError: Names classes that one of them lacks.
    """
    first, second = list(train.class_names), list(test.class_names)
    if not are_same(first, second):
        raise DataError(
            f"the training split has {len(first)} classes and the test split {len(second)}; they must be the "
            f"same, in the same order. In the test split, {describe_difference(first, second)}"
        )
