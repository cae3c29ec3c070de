"""Which checkpoint a run resumes from: the newest that is whole. Damaged ones are put aside, not deleted."""

from collections.abc import Iterable

from etils import epath

from resnet_jax.console import print_note
from resnet_jax.files import as_path
from resnet_jax.object_storage import copy_objects, delete_objects, is_url
from resnet_jax.parallel import Processes
from resnet_jax.training.checkpoint_files import CHECKPOINT_DIRECTORY, COMMIT_MARK, mark_copies
from resnet_jax.training.checkpoints import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    read_checkpoint,
    steps_in,
)
from resnet_jax.training.shared_checkpoint import share_checkpoint

DAMAGED = "damaged"


def find_checkpoint(workdir: epath.Path, processes: Processes, *, fallback: bool) -> Checkpoint | None:
    """Returns the checkpoint that a run resumes from, if there is one.

    Warns of damaged ones and puts them aside. The first process reads it, and sends it to the others.

    Raises:
        CheckpointError: As newest_whole.
    """
    found, damages = newest_whole(workdir, fallback=fallback) if processes.first else (None, {})
    checkpoint = share_checkpoint(found, processes)
    if checkpoint is None:
        return None
    if processes.first:
        mark_copies(workdir)
        put_aside(workdir, damages)
        for step, damage in damages.items():
            print_note(
                f"warning: {damage}; it is moved to {workdir / DAMAGED / str(step)}, and the run resumes "
                f"from step {checkpoint.step} (--config.run.fallback=false stops instead)"
            )
    # The first has moved them: the others may look for the newest.
    processes.agree("damaged checkpoints", {})
    return checkpoint


def newest_whole(workdir: epath.PathLike, *, fallback: bool) -> tuple[Checkpoint | None, dict[int, str]]:
    """Returns the newest whole checkpoint, if any, and what is wrong with newer ones, by their step.

    Args:
        workdir: Directory of the run.
        fallback: Pass over damaged checkpoints.

    Raises:
        CheckpointError: The newest is damaged, and there is no fallback or no other; or its format is newer
            than this version.
    """
    damages: dict[int, str] = {}
    for step in reversed(steps_in(workdir)):
        try:
            return read_checkpoint(workdir, step), damages
        except DamagedError as error:
            if not fallback:
                raise
            damages[step] = error.damage
    if damages:
        raise CheckpointError(
            f"no checkpoint of {workdir} is whole ({'; '.join(damages.values())}): restore one from a copy, "
            "or train from scratch in another workdir"
        )
    return None, {}


def put_aside(workdir: epath.PathLike, steps: Iterable[int]) -> None:
    """Moves checkpoints to `<workdir>/damaged/<step>`, so that the run can save these steps again."""
    aside = as_path(workdir) / DAMAGED
    for step in steps:
        damaged = as_path(workdir) / CHECKPOINT_DIRECTORY / str(step)
        if is_url(damaged):
            copy_objects(damaged, aside / str(step))
            delete_objects(damaged, first=COMMIT_MARK)
            continue
        aside.mkdir(exist_ok=True)
        if (aside / str(step)).exists():
            (aside / str(step)).rmtree()
        damaged.rename(aside / str(step))
