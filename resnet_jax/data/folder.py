"""Image folders as people have them, on a disk or in object storage: `train/CLASS/*.jpg`, or `CLASS/*.jpg`.

Images may lie deeper in the folder of a class (`train/CLASS/images/*.jpg`). Where a folder holds classes and
no splits, a hash of each file's name decides whether it is for training or for testing. Flat splits with
their labels in a file are read too; see `resnet_jax.data.flat_labels`.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence

from etils import epath

from resnet_jax.console import print_note
from resnet_jax.data.class_names import identity, in_order, normalized
from resnet_jax.data.data_error import DataError
from resnet_jax.data.flat_labels import find_labels
from resnet_jax.data.image_files import (
    IMAGE_SUFFIXES,
    LeftOut,
    find_images,
    folders_in,
    is_folder,
    note_left_out,
    sorted_entries,
)
from resnet_jax.data.range_reads import expect, start_reading, take
from resnet_jax.files import as_path
from resnet_jax.object_storage import is_url

VALIDATION_NAMES = ("val", "validation", "valid")
"""Names of one split."""

SPLIT_NAMES = ("train", *VALIDATION_NAMES, "test")
TRAINING, ALL = "train", "all"
HELD_OUT = 0.2
"""Share of the images of a folder without splits that are for testing."""


@dataclasses.dataclass(frozen=True)
class FolderExamples:
    """The image files of a split, class by class, in the order of their names.

    Attributes:
        root: Folder of the split.
        class_names: Names of the classes, by label, in Unicode's composed form.
        files: Paths relative to the root.
        labels: Label of each file.
        left_out: Files below the root that are not read, and why.
    """

    root: str
    class_names: Sequence[str]
    files: Sequence[str]
    labels: Sequence[int]
    left_out: Sequence[LeftOut] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        """Digest of the names of all files and their classes, wherever the folder lies."""
        digest = hashlib.sha256()
        for file, label in zip(self.files, self.labels, strict=True):
            line = f"{normalized(file)}\0{self.class_names[label]}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def read(self, index: int) -> tuple[bytes, int]:
        if is_url(self.root):
            name = self.files[index]
            begun = take((self.root, name), functools.partial(start_reading, self.root, name))
            return begun(), self.labels[index]
        try:
            with open(f"{self.root}/{self.files[index]}", "rb", buffering=0) as file:
                return file.read(), self.labels[index]
        except OSError as error:
            raise self._unreadable(index, error) from error

    def _unreadable(self, index: int, error: OSError) -> DataError:
        return DataError(f"{self.describe(index)} cannot be read: {error.strerror or error}; check the file")

    def expect(self, indices: Sequence[int]) -> None:
        for index in indices if is_url(self.root) else ():
            file = self.files[index]
            expect((self.root, file), functools.partial(start_reading, self.root, file))

    def label(self, index: int) -> int:
        return self.labels[index]

    def stamp(self, index: int) -> str:
        name = f"{self.class_names[self.labels[index]]} {self.files[index]}"
        if is_url(self.root):
            return name
        try:
            status = os.stat(f"{self.root}/{self.files[index]}")
        except OSError as error:
            raise self._unreadable(index, error) from error
        return f"{name} {status.st_size} {status.st_mtime_ns}"

    def describe(self, index: int) -> str:
        return f"{self.root}/{self.files[index]} (example {index})"


def open_folder(root: str, split: str, *, class_names: Sequence[str] | None = None) -> FolderExamples:
    """Lists a split of an image folder.

    Args:
        root: The folder, or URL.
        split: Name of the split: a folder in it; or, where it holds classes and no splits, `train`, `test`
            (or `val`, `validation`), or `all`.
        class_names: Names by label that a run was trained with. If the folder has the same classes, they get
            these labels; else the labels are in the order of the names.

    Raises:
        DataError: There is no such folder or split, a class has no image, or labels are missing.
    """
    root = data_root(root)
    if not has_splits(root) and split in (*SPLIT_NAMES, ALL):
        return _open_part(root, split, class_names)
    path = _split_folder(root, split)
    return _open_flat(path, root, class_names) or _open_classes(path, class_names)


def data_root(root: str) -> str:
    """Returns the folder that holds the splits: of Kaggle's ImageNet that is `ILSVRC/Data/CLS-LOC`."""
    for below in ("Data/CLS-LOC", "ILSVRC/Data/CLS-LOC"):
        if (as_path(root) / below / TRAINING).is_dir():
            return os.fspath(as_path(root) / below)
    return root


def has_splits(root: str) -> bool:
    """Returns whether a folder holds splits; otherwise its folders are classes."""
    return any(name.lower() in SPLIT_NAMES for name in folders_in(root)) or not _holds_classes(root)


def _holds_classes(root: str) -> bool:
    names = folders_in(root)
    return bool(names) and any(_has_image_files(f"{root}/{name}") for name in names)


def _has_image_files(folder: str) -> bool:
    return any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in sorted_entries(folder))


def label_splits(root: str) -> tuple[list[str], list[str]]:
    """Returns the splits of an image folder that have labels, and those that have none."""
    root = data_root(root)
    if not has_splits(root):
        return ([TRAINING, "test"] if folders_in(root) else []), []
    labeled: list[str] = []
    unlabeled: list[str] = []
    for name in folders_in(root):
        folder = as_path(root) / name
        images = [] if folders_in(folder) else find_images(folder).images
        has_labels = not images or find_labels(os.fspath(folder), images)
        (labeled if has_labels else unlabeled).append(name)
    return labeled, unlabeled


def _open_classes(path: epath.Path, wanted: Sequence[str] | None) -> FolderExamples:
    """Lists the classes of a split. Folders whose names differ in the form of Unicode alone are one class."""
    folders = folders_in(path)
    if not folders:
        raise DataError(f"{path} has no folders of classes; images are expected at {path}/CLASS/NAME.jpg")
    by_class: dict[str, list[str]] = {}
    for folder in folders:
        by_class.setdefault(normalized(folder), []).append(folder)
    for name, several in by_class.items():
        if len(several) > 1:
            print_note(
                f"{path}: {len(several)} folders are named {name!r} in different Unicode forms, and are read "
                "as one class"
            )
    names = _ordered(by_class, wanted)
    files: list[str] = []
    labels: list[int] = []
    left_out = [
        LeftOut(entry.name, "hidden" if entry.name.startswith(".") else "not in the folder of a class")
        for entry in sorted_entries(path)
        if not is_folder(entry)
    ]
    for label, name in enumerate(names):
        images: list[str] = []
        for folder in by_class[name]:
            listing = find_images(path / folder)
            images += [f"{folder}/{image}" for image in listing.images]
            left_out += [LeftOut(f"{folder}/{item.path}", item.reason) for item in listing.left_out]
        if not images:
            raise DataError(
                f"class {name!r} has no images in {path / by_class[name][0]}; add some "
                f"({', '.join(sorted(IMAGE_SUFFIXES))}), or remove the folder"
            )
        files += images
        labels += [label] * len(images)
    note_left_out(os.fspath(path), left_out)
    return FolderExamples(os.fspath(path), names, files, labels, left_out)


def _ordered(names: "dict[str, list[str]]", wanted: Sequence[str] | None) -> list[str]:
    """Returns class names by label: in the order of `wanted` if these are the same classes."""
    own = {identity(name): name for name in names}
    if wanted and len(own) == len(names) and sorted(map(identity, wanted)) == sorted(own):
        return [own[identity(name)] for name in wanted]
    return in_order(names)


def _open_part(root: str, split: str, wanted: Sequence[str] | None) -> FolderExamples:
    """Returns the part of a folder without splits that is for training, for testing, or all of it."""
    whole = _open_classes(as_path(root), wanted)
    if split == ALL:
        return whole
    chosen = [number for number, file in enumerate(whole.files) if is_held_out(file) == (split != TRAINING)]
    if not chosen:
        raise DataError(
            f"{root} has {len(whole)} images, too few for a split {split!r}; add images, or put them into "
            f"{root}/train/CLASS and {root}/test/CLASS"
        )
    return dataclasses.replace(
        whole,
        files=[whole.files[number] for number in chosen],
        labels=[whole.labels[number] for number in chosen],
    )


def is_held_out(file: str) -> bool:
    """Returns whether an image of a folder without splits is for testing: the hash of its name decides.

    Adding or removing other files does not change it.
    """
    digest = hashlib.sha256(normalized(file).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT * 2**64


def _open_flat(path: epath.Path, root: str, wanted: Sequence[str] | None) -> FolderExamples | None:
    """Returns a split whose labels are in a file; None if it has folders of classes and no such file."""
    if len(folders_in(path)) > 1:
        return None
    listing = find_images(path)
    found = find_labels(os.fspath(path), listing.images)
    if found is None:
        if not folders_in(path) and listing.images:
            raise DataError(
                f"{path} holds {len(listing.images)} images without labels: no folders of classes, and no "
                "file such as LOC_val_solution.csv, ILSVRC2012_devkit_t12.tar.gz or val_annotations.txt near "
                "it; add one, or choose another split"
            )
        return None
    file = found[1]
    classes = {image: normalized(name) for image, name in found[0].items()}
    train = as_path(root) / TRAINING
    known = set(map(normalized, folders_in(train))) if train.is_dir() else set(classes.values())
    unknown = sorted(set(classes.values()) - known)
    if unknown:
        raise DataError(f"{file} names the class {unknown[0]!r}, which is no folder of {train}")
    names = _ordered({name: [name] for name in known}, wanted)
    label = {name: number for number, name in enumerate(names)}
    files = sorted(listing.images, key=lambda image: (label[classes[image]], image))
    labels = [label[classes[image]] for image in files]
    left_out = [item for item in listing.left_out if not file.endswith(f"/{item.path}")]
    note_left_out(os.fspath(path), left_out)
    return FolderExamples(os.fspath(path), names, files, labels, left_out)


def names_of_split(split: str) -> tuple[str, ...]:
    """Returns the names that a split may go by, itself first."""
    return (split, *VALIDATION_NAMES) if split in VALIDATION_NAMES else (split,)


def _split_folder(root: str, split: str) -> epath.Path:
    directory = as_path(root)
    for name in names_of_split(split):
        if "[" not in name and (directory / name).is_dir():
            return directory / name
    hint = "parts of a split, in brackets, are for sets of TFDS; " if "[" in split else ""
    raise DataError(
        f"{root} has no split {split!r}; {hint}its folders are {', '.join(folders_in(root)) or 'none'}; an "
        "image folder holds SPLIT/CLASS/NAME.jpg, and config.data.train_split and test_split name the splits"
    )
