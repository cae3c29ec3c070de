"""Saves the states of a run in the background, by Orbax, so that a checkpoint is whole or not there."""

import contextlib
import operator
from collections.abc import Sequence

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import unflatten_dict
from orbax.checkpoint import checkpoint_managers

from resnet_jax.errors import ResNetError
from resnet_jax.files import JsonObject, absolute_path
from resnet_jax.lease import confirm_ownership
from resnet_jax.models.registry import ModelArguments
from resnet_jax.training.checkpoint_files import (
    CHECKPOINT_DIRECTORY,
    COMMIT_FILES,
    check_space,
    innermost_cause,
    inode_of,
    write_checksums,
)
from resnet_jax.training.checkpoints import CHECKPOINT_FORMAT, DESCRIPTION, STATE, steps_in, to_arrays

_PATIENCE = 2_000_000  # Seconds of wall-clock time after which Orbax gives up a commit.


class SaveError(ResNetError):
    """A checkpoint that could not be written; the message says why, and where the run can go on from."""


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
