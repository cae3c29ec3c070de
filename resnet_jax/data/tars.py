"""ImageNet's official tar files (ILSVRC2012_img_*.tar and the development kit), read in place."""

import dataclasses
import io
import os
import tarfile
from collections.abc import Sequence

from resnet_jax.data.data_error import DataError
from resnet_jax.data.encoded import Examples

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
KITS = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tar")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@dataclasses.dataclass(frozen=True)
class TarExamples:
    """Image files within a tar, by their place in it.

    Attributes:
        path: Path of the tar file.
        class_names: WordNet's numbers, sorted.
        members: Name, offset, length and label of each file.
    """

    path: str
    class_names: Sequence[str]
    members: Sequence[tuple[str, int, int, int]]
    fingerprint = None

    def __len__(self) -> int:
        return len(self.members)

    def read(self, index: int) -> tuple[bytes, int]:
        _, offset, length, label = self.members[index]
        with open(self.path, "rb", buffering=0) as file:
            file.seek(offset)
            content = file.read(length)
        if len(content) < length:
            raise DataError(f"{self.describe(index)}: {self.path} is cut short; download it again")
        return content, label

    def expect(self, indices: Sequence[int]) -> None:
        """Does nothing: a disk is not waited for."""

    def label(self, index: int) -> int:
        return self.members[index][3]

    def stamp(self, index: int) -> str:
        return " ".join(map(str, self.members[index]))

    def describe(self, index: int) -> str:
        return f"{self.path}/{self.members[index][0]} (example {index})"


def open_tars(root: str) -> dict[str, Examples]:
    """Lists the splits; validation is there if its tar is, and needs the development kit for its labels.

    Raises:
        DataError: A tar is missing or damaged, or the labels are not those of its images.
    """
    try:
        train = _open_train(os.path.join(root, TRAIN))
        if not os.path.exists(os.path.join(root, VALIDATION)):
            return {"train": train}
        return {"train": train, "validation": _open_validation(root, train.class_names)}
    except tarfile.TarError as error:
        raise DataError(f"a tar in {root} is damaged ({error}); download it again") from error


def _open_train(path: str) -> TarExamples:
    members: list[tuple[str, int, int, int]] = []
    with tarfile.open(path, "r:") as outer:
        classes = sorted((m for m in outer if m.name.endswith(".tar")), key=lambda member: member.name)
        if not classes:
            raise DataError(f"{path} holds no tars of classes, such as n01440764.tar")
        for label, member in enumerate(classes):
            with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                files = sorted((file for file in inner if file.isfile()), key=lambda file: file.name)
            members += [
                (file.name, member.offset_data + file.offset_data, file.size, label) for file in files
            ]
    return TarExamples(path, [member.name.removesuffix(".tar") for member in classes], members)


def _open_validation(root: str, class_names: Sequence[str]) -> TarExamples:
    kit = next((path for name in KITS if os.path.exists(path := os.path.join(root, name))), None)
    if kit is None:
        raise DataError(f"the labels of {VALIDATION} are in {KITS[0]}, which is not in {root}; put it there")
    names = validation_classes(kit)
    path = os.path.join(root, VALIDATION)
    with tarfile.open(path, "r:") as tar:
        files = sorted((file for file in tar if file.isfile()), key=lambda file: file.name)
    if len(files) != len(names):
        raise DataError(
            f"{path} holds {len(files)} images, and {kit} {len(names)} labels; download both again"
        )
    label = {name: number for number, name in enumerate(class_names)}
    unknown = sorted(set(names) - set(label))
    if unknown:
        raise DataError(f"{kit} names {unknown[0]}, which is no class of {TRAIN}; download both again")
    return TarExamples(
        path,
        class_names,
        [
            (file.name, file.offset_data, file.size, label[name])
            for file, name in zip(files, names, strict=True)
        ],
    )


def validation_classes(kit: str) -> list[str]:
    """Returns the WordNet id of each validation image, in the order of their names.

    Args:
        kit: The development kit: its tar, or the folder that it was unpacked to.

    Raises:
        DataError: It holds no labels.
    """
    import scipy.io

    ground_truth = _read_from_kit(kit, GROUND_TRUTH)
    try:
        synsets = scipy.io.loadmat(io.BytesIO(_read_from_kit(kit, "meta.mat")), squeeze_me=True)["synsets"]
        names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        return [names[int(line)] for line in ground_truth.split()]
    except (ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise DataError(f"{kit} is damaged ({type(error).__name__}: {error}); download it again") from error


def _read_from_kit(kit: str, name: str) -> bytes:
    if os.path.isdir(kit):
        path = os.path.join(kit, "data", name)
        if os.path.exists(path):
            with open(path, "rb") as unpacked:
                return unpacked.read()
    else:
        with tarfile.open(kit) as tar:
            content = {os.path.basename(member.name): member for member in tar if member.isfile()}
            file = tar.extractfile(content[name]) if name in content else None
            if file is not None:
                return file.read()
    raise DataError(f"{kit} holds no {name}; download it again")
