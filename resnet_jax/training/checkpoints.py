"""Checkpoints: written by Orbax in the background, committed by one rename, verified when they are read.

A checkpoint `<workdir>/checkpoints/<step>/` holds the arrays of a state (`state/`), a description with
config, class names and preprocessing (`description/`), metrics, if the step was evaluated, and
`checksums.json`. It exists whole or not at all: everything is written under a temporary name, the checksums
last, and then renamed. Orbax itself would restore a file with a flipped bit without a word.
"""

import dataclasses
import json
from typing import TypeVar

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.errors import UsageError
from resnet_jax.files import JsonObject, absolute_path, as_path
from resnet_jax.models.registry import ModelArguments
from resnet_jax.models.stacking import is_stacked, stack_arrays, unstack_arrays
from resnet_jax.object_storage import is_url, local_copy
from resnet_jax.training.checkpoint_files import (
    CHECKPOINT_DIRECTORY,
    COMMIT_FILES,
    complete_in,
    describe_missing_run,
    find_damage,
    innermost_cause,
)

CHECKPOINT_FORMAT = 2
"""Format of checkpoints. Format 1 holds neither class names nor preprocessing."""

STATE, DESCRIPTION = "state", "description"

Arrays = dict[str, np.ndarray]
"""The arrays of a state by path, for example `params/stage1/block1/conv1/kernel`."""

State = TypeVar("State")  # A TrainState of arrays or of shapes, or another pytree.


class CheckpointError(UsageError):
    """A checkpoint that is not there, not whole, or of another net; the message says which and what to do."""


class DamagedError(CheckpointError):
    """A checkpoint that is not as it was written.

    Attributes:
        damage: Which, and what is wrong with it.
    """

    def __init__(self, path: epath.Path, damage: str) -> None:
        self.damage = f"{path} {damage}"
        super().__init__(f"{self.damage}; {_way_out(path)}")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: Updates made.
        arrays: All arrays of the state, in host memory; blocks that the run had stacked are apart.
        config: The config of the run, as JSON.
        model: Arguments of create_model: `name`, `num_classes`, `dtype` and options.
        class_names: Names of the classes, by label. None in checkpoints of format 1.
        preprocessing: From a picture of any size to an image, as JSON. None in checkpoints of format 1.
    """

    step: int
    arrays: Arrays
    config: JsonObject
    model: ModelArguments
    class_names: tuple[str, ...] | None = None
    preprocessing: JsonObject | None = None


def steps_in(workdir: epath.PathLike) -> list[int]:
    """Returns the steps of the committed checkpoints of a run, rising."""
    directory = as_path(workdir) / CHECKPOINT_DIRECTORY
    if is_url(directory):
        return sorted(int(name) for name in complete_in(directory) if name.isdigit())
    if not directory.exists():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def read_checkpoint(workdir: epath.PathLike, step: int | None = None) -> Checkpoint:
    """Reads and verifies a checkpoint, the newest by default.

    Raises:
        CheckpointError: There is none, or its format is newer than this version.
        DamagedError: A file of it is missing or altered.
    """
    steps = steps_in(workdir)
    if not steps:
        raise CheckpointError(describe_missing_run(workdir))
    if step is not None and step not in steps:
        has = ", ".join(map(str, steps))
        raise CheckpointError(f"{workdir} has no checkpoint of step {step}; it has {has}")
    path = absolute_path(workdir) / CHECKPOINT_DIRECTORY / str(steps[-1] if step is None else step)
    with local_copy(path) as directory:
        return _read_directory(directory, path)


def _read_directory(directory: epath.Path, path: epath.Path) -> Checkpoint:
    """Reads and verifies the files of a checkpoint in a local directory; `path` is where they are kept."""
    # A process killed right after a commit has not recorded what the commit itself writes.
    if damage := find_damage(directory, optional=COMMIT_FILES):
        raise DamagedError(path, f"is damaged: {damage}")
    try:
        description = json.loads((directory / DESCRIPTION / "metadata").read_text())
        if (found := description["format_version"]) > CHECKPOINT_FORMAT:
            raise CheckpointError(
                f"{path} has format {found}, and this version reads up to {CHECKPOINT_FORMAT}; upgrade "
                "resnet-jax"
            )
        wanted = {
            name: ocp.RestoreArgs(restore_type=np.ndarray, dtype=np.dtype(dtype))
            for name, (dtype, _) in description["arrays"].items()
        }
        tree = unflatten_dict(wanted, sep="/")
        with _reader() as reader:
            restored = reader.restore(
                directory / STATE, item=jax.tree.map(lambda _: 0, tree), restore_args=tree
            )
    except CheckpointError:
        raise
    except Exception as error:
        raise DamagedError(path, f"cannot be read: {innermost_cause(error)}") from error
    arrays = unstack_arrays(flatten_dict(restored, sep="/"))
    names = description.get("class_names")
    return Checkpoint(
        step=description["step"],
        arrays=arrays,
        config=description["config"],
        model=description["model"],
        class_names=None if names is None else tuple(names),
        preprocessing=description.get("preprocessing"),
    )


def _reader() -> ocp.Checkpointer:
    """Returns what reads a checkpoint in this process alone, whether or not it is one of several."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"reader{own}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def to_arrays(state: object) -> Arrays:
    """Returns the arrays of a state by path, as they are: in host memory, on devices, or abstract."""
    return flatten_dict(flax.serialization.to_state_dict(state), sep="/")


def from_arrays(template: State, arrays: Arrays) -> State:
    """Returns a state like the template with the values of `arrays`, its blocks stacked as in the template.

    Raises:
        CheckpointError: Names, shapes or dtypes differ; they are listed.
    """
    wanted = to_arrays(template)
    arrays = stack_arrays(arrays) if is_stacked(wanted) else unstack_arrays(arrays)
    differences = [f"{name} is missing" for name in wanted if name not in arrays]
    differences += [f"{name} is left over" for name in arrays if name not in wanted]
    for name, array in arrays.items():
        if name in wanted and (found := _describe(array)) != (expected := _describe(wanted[name])):
            differences.append(f"{name} is {found}, expected {expected}")
    if differences:
        shown = "; ".join(differences[:6]) + (
            f"; and {len(differences) - 6} more" if len(differences) > 6 else ""
        )
        raise CheckpointError(f"the checkpoint is of another net: {shown}")
    empty = flatten_dict(flax.serialization.to_state_dict(template), keep_empty_nodes=True, sep="/")
    return flax.serialization.from_state_dict(template, unflatten_dict({**empty, **arrays}, sep="/"))


def _describe(array: np.ndarray) -> str:
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"


def _way_out(path: epath.Path) -> str:
    others = [step for step in steps_in(path.parent.parent) if str(step) != path.name]
    if not others:
        return "restore it from a copy, or train from scratch in another workdir"
    return f"delete {path} and run the same command again to go on from step {others[-1]}"
