"""Image folders: `train/<class>/*.jpg`, as most people have them, on a disk or in object storage."""

import dataclasses
import os
from collections.abc import Sequence

from etils import epath

from resnet_jax.data.data_error import DataError

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp"])
ALIASES = {"validation": "val", "val": "validation"}
"""Other names that the same split goes by."""


@dataclasses.dataclass(frozen=True)
class FolderExamples:
    """The image files of a split, class by class, in the order of their names.

    Attributes:
        root: Of the split.
        class_names: Names of its folders, sorted.
        files: Relative to the root.
        labels: Of the files.
    """

    root: str
    class_names: Sequence[str]
    files: Sequence[str]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[bytes, int]:
        path = f"{self.root}/{self.files[index]}"
        try:
            if "://" in path:
                return epath.Path(path).read_bytes(), self.labels[index]
            with open(path, "rb", buffering=0) as file:
                return file.read(), self.labels[index]
        except OSError as error:
            raise DataError(
                f"{self.describe(index)} cannot be read: {error.strerror or error}; see to the file"
            ) from error

    def label(self, index: int) -> int:
        return self.labels[index]

    def describe(self, index: int) -> str:
        return f"{self.root}/{self.files[index]} (example {index})"


def open_folder(root: str, split: str) -> FolderExamples:
    """Lists a split of an image folder.

    Raises:
        DataError: There is no such folder or split, or a class has no image.
    """
    path = _split_folder(root, split)
    classes = splits_of(path)
    if not classes:
        raise DataError(f"{path} has no folders of classes; images are expected at {path}/CLASS/NAME.jpg")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(
            entry.name
            for entry in _entries(path / name)
            if not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
        )
        if not images:
            raise DataError(
                f"class {name!r} has no images in {path / name}; add some "
                f"({', '.join(sorted(IMAGE_SUFFIXES))}), or remove the folder"
            )
        files += [f"{name}/{image}" for image in images]
        labels += [label] * len(images)
    return FolderExamples(os.fspath(path), classes, files, labels)


def _split_folder(root: str, split: str) -> epath.Path:
    directory = epath.Path(root)
    for name in (split, ALIASES.get(split, split)):
        if "[" not in name and (directory / name).is_dir():
            return directory / name
    hint = "parts of a split, in brackets, are for sets of TFDS; " if "[" in split else ""
    raise DataError(
        f"{root} has no split {split!r}; {hint}its folders are {', '.join(splits_of(root)) or 'none'}; an "
        "image folder holds SPLIT/CLASS/NAME.jpg, and config.data.train_split and test_split name the splits"
    )


def splits_of(root: epath.PathLike) -> list[str]:
    """Returns the names of the folders in an image folder, or of those in a split."""
    return sorted(
        entry.name
        for entry in _entries(epath.Path(root))
        if not entry.name.startswith(".") and entry.is_dir()
    )


def _entries(path: epath.Path) -> Sequence[os.DirEntry[str] | epath.Path]:
    try:
        if "://" in os.fspath(path):
            return list(path.iterdir())
        with os.scandir(path) as entries:  # Many times faster than path objects, on a million files.
            return list(entries)
    except OSError as error:
        raise DataError(f"{path} cannot be listed: {error.strerror or error}") from error
