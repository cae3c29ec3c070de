"""What a run was trained on, as `data.json` in its workdir: class names, counts and a fingerprint of names.

Where the data lies is no part of it, so that a run can be resumed on another disk or host.
"""

from collections.abc import Sequence
from typing import Protocol, TypedDict

from etils import epath

from resnet_jax.console import print_note
from resnet_jax.data.class_names import are_same, describe_difference
from resnet_jax.files import as_path, read_json, write_json
from resnet_jax.training.checkpoint_files import CHECKPOINT_DIRECTORY
from resnet_jax.training.checkpoints import DESCRIPTION, steps_in
from resnet_jax.training.workdir import WorkdirError, read_config

DATA_RECORD = "data.json"


class SplitRecord(TypedDict):
    """What a split held; `fingerprint` is None where the name of the dataset says it all."""

    examples: int
    fingerprint: str | None


class DataRecord(TypedDict):
    """What a run was trained on."""

    class_names: list[str]
    train: SplitRecord
    test: SplitRecord


_NO_SPLIT: SplitRecord = {"examples": 0, "fingerprint": None}


class RecordedSplit(Protocol):
    """What is recorded of a split of any task."""

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def fingerprint(self) -> str | None: ...

    def __len__(self) -> int: ...


def record_of(train: RecordedSplit, test: RecordedSplit) -> DataRecord:
    """Returns the record of a run's two splits."""
    return {
        "class_names": list(train.class_names),
        "train": {"examples": len(train), "fingerprint": train.fingerprint},
        "test": {"examples": len(test), "fingerprint": test.fingerprint},
    }


def store_record(workdir: epath.Path, record: DataRecord, *, moved: bool) -> None:
    """Writes the record of a run's data; once there is a checkpoint, the data must be what it was.

    Args:
        workdir: Directory of the run.
        record: Record of the data that is to be trained on.
        moved: Whether the data lies elsewhere than before.

    Raises:
        WorkdirError: The workdir holds checkpoints that were trained on other data.
    """
    path = workdir / DATA_RECORD
    if path.exists() and steps_in(workdir):
        if differences := _differences(_read(path), record):
            raise WorkdirError(
                f"{workdir} holds a run that was trained on other data: {'; '.join(differences)}. "
                "Restore the data, or choose another --workdir"
            )
        return
    if moved and steps_in(workdir):
        print_note(
            f"{workdir} does not record what its data was, since an earlier version began it; the data at "
            "its new place is accepted, and recorded from now on"
        )
    write_json(path, record)


def trained_class_names(workdir: epath.PathLike) -> Sequence[str] | None:
    """Returns the class names of the data that a run was trained on, by label; None if they are not known.

    They are those of the record, or for runs of earlier versions those of the newest checkpoint, unless the
    recipe gives names of its own.
    """
    path = as_path(workdir)
    if (path / DATA_RECORD).exists():
        return list(map(str, _read(path / DATA_RECORD)["class_names"]))
    steps = steps_in(path)
    if not steps or read_config(path).inference.class_names:
        return None
    description = path / CHECKPOINT_DIRECTORY / str(steps[-1]) / DESCRIPTION / "metadata"
    try:
        names = read_json(description).get("class_names")
    except (OSError, ValueError, AttributeError):
        return None  # Whoever reads the checkpoint says that it is damaged.
    return None if names is None else list(map(str, names))


def _read(path: epath.Path) -> DataRecord:
    try:
        record: DataRecord = read_json(path)
        return {
            "class_names": list(record["class_names"]),
            "train": {**_NO_SPLIT, **record["train"]},
            "test": {**_NO_SPLIT, **record["test"]},
        }
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(
            f"{path} is damaged; delete it, and the next start records the data again"
        ) from error


def _differences(old: DataRecord, new: DataRecord) -> list[str]:
    if not are_same(old["class_names"], new["class_names"]):
        return [describe_difference(old["class_names"], new["class_names"])]
    found = []
    pairs = {"train": (old["train"], new["train"]), "test": (old["test"], new["test"])}
    for split, (was, now) in pairs.items():
        both = (was["fingerprint"], now["fingerprint"])
        if was["examples"] != now["examples"]:
            found.append(f"{split} split: {was['examples']} -> {now['examples']} images")
        elif None not in both and both[0] != both[1]:
            found.append(f"{split} split: as many images, and other file names")
    return found
