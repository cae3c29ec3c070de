"""Checkpoints: written by Orbax in the background, committed by one rename, verified when they are read.

A checkpoint `<workdir>/checkpoints/<step>/` holds the arrays of a state (`state/`), a description with
config, class names and preprocessing (`description/`), metrics, if the step was evaluated, and
`checksums.json`. It exists whole or not at all: everything is written under a temporary name, the checksums
last, and then renamed. Orbax itself would restore a file with a flipped bit without a word.
"""

import contextlib
import dataclasses
import json
import operator
from collections.abc import Sequence
from typing import TypeVar

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint import checkpoint_managers

from resnet_jax.errors import ResNetError, UsageError
from resnet_jax.files import JsonObject, absolute_path, as_path
from resnet_jax.models.registry import ModelArguments
from resnet_jax.models.stacking import is_stacked, stack_arrays, unstack_arrays
from resnet_jax.object_storage import is_url, local_copy
from resnet_jax.training.checkpoint_files import (
    CHECKPOINT_DIRECTORY,
    COMMIT_FILES,
    check_space,
    complete_in,
    describe_missing_run,
    find_damage,
    innermost_cause,
    inode_of,
    write_checksums,
)
from resnet_jax.training.lease import confirm_ownership

CHECKPOINT_FORMAT = 2
"""Format of checkpoints. Format 1 holds neither class names nor preprocessing."""

STATE, DESCRIPTION = "state", "description"

_PATIENCE = 2_000_000  # Seconds of wall-clock time after which Orbax gives up a commit.

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


class SaveError(ResNetError):
    """A checkpoint that could not be written; the message says why, and where the run can go on from."""


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


class CheckpointWriter:
    """Saves states of one run, and deletes all but the newest and the best.

    Args:
        workdir: Directory of the run.
        keep: Number of newest checkpoints that are kept, beside the best one.
        config: Config of the run, as JSON; stored with every checkpoint.
        model: Arguments of create_model; stored with every checkpoint.
        score: Metric that the best checkpoint is chosen by; higher is better.
        class_names: Names of the classes, by label; stored with every checkpoint.
        preprocessing: From a picture to an image of the network, as JSON; stored with every checkpoint.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        keep: int,
        config: JsonObject,
        model: ModelArguments,
        score: str = "top1",
        class_names: Sequence[str] | None = None,
        preprocessing: JsonObject | None = None,
    ) -> None:
        self._directory = absolute_path(workdir) / CHECKPOINT_DIRECTORY  # Orbax wants it absolute.
        self._stored = {
            "format_version": CHECKPOINT_FORMAT,
            "config": config,
            "model": model,
            "class_names": None if class_names is None else list(class_names),
            "preprocessing": preprocessing,
        }
        self._saving: int | None = None
        best_fn = operator.itemgetter(score)
        best = checkpoint_managers.BestN(get_metric_fn=best_fn, n=1, keep_checkpoints_without_metrics=False)
        kept = checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(keep), best])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=kept,
            best_fn=best_fn,  # Only so that metrics are stored: what is kept is the policy's affair.
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._write_checksums,
                # In the background, a directory that cannot be created leaves a thread waiting for minutes.
                create_directories_asynchronously=False,
                timeout_secs=_PATIENCE,
            ),
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        self._inode = inode_of(self._directory)

    def save(self, step: int, state: object, metrics: dict[str, float] | None = None) -> None:
        """Copies the state to host memory and returns; the rest is done in the background.

        Raises:
            SaveError: This save cannot begin, or an earlier one failed, for example for want of space.
        """
        # All transfers at once; Orbax copies what shares memory with the state.
        arrays = jax.device_get(to_arrays(state))
        described = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
        self.wait()
        self._saving = step
        items = {
            STATE: ocp.args.StandardSave(unflatten_dict(arrays, sep="/")),
            DESCRIPTION: ocp.args.JsonSave({**self._stored, "step": step, "arrays": described}),
        }
        try:
            check_space(self._directory, sum(array.nbytes for array in arrays.values()))
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)
        except Exception as error:
            raise self._failure(error) from error

    def wait(self) -> None:
        """Returns when no save is under way.

        Raises:
            SaveError: The last save failed; what was saved before it is whole.
        """
        try:
            self._manager.wait_until_finished()
            self._write_checksums(committed=True)
        except Exception as error:
            raise self._failure(error) from error
        self._saving = None

    def close(self) -> None:
        """Ends the background thread; call `wait` first to hear of failures."""
        with contextlib.suppress(Exception):
            self._manager.close()

    def _failure(self, error: Exception) -> SaveError:
        workdir = self._directory.parent
        if inode_of(self._directory) != self._inode:
            return SaveError(
                f"the workdir {workdir} is gone (deleted, moved or unmounted), and step {self._saving} is "
                "not saved; bring it back and run the same command again: it resumes from the newest "
                "checkpoint in it"
            )
        whole = steps_in(workdir)
        resumable = f"step {whole[-1]}" if whole else "the beginning"
        return SaveError(
            f"the checkpoint of step {self._saving} could not be written to {self._directory}: "
            f"{innermost_cause(error)}; fix that (space, permissions) and run the same command again: it "
            f"resumes from {resumable}"
        )

    def _write_checksums(self, *, committed: bool = False) -> None:
        """Runs just before a save is committed, under its temporary name, and once more after the commit.

        So what is long, the sums of the arrays, is left to the first time, in the background.
        """
        if jax.process_index() != 0 or self._saving is None:
            return
        confirm_ownership(self._directory.parent)
        for path in self._directory.iterdir():
            if path.name.split(".")[0] == str(self._saving):
                write_checksums(path, apart=COMMIT_FILES, only_apart=committed)


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
        with ocp.PyTreeCheckpointer() as reader:
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
