"""Which checkpoint a run goes on from: the newest that is whole. Damaged ones are put aside, not deleted."""

from collections.abc import Iterable

from etils import epath

from resnet_jax.training.checkpoints import DIRECTORY, Checkpoint, CheckpointError, DamagedError, read_checkpoint, steps_in

DAMAGED = "damaged"


def newest_whole(workdir: epath.PathLike, *, fallback: bool) -> tuple[Checkpoint | None, dict[int, str]]:
    """Returns the newest whole checkpoint, None where there is none at all, and what is wrong with newer ones, by their step.

    Args:
        workdir: Of the run.
        fallback: Pass over damaged checkpoints.

    Raises:
        CheckpointError: The newest is damaged, and there is no fallback or no other; or its format is newer than this version.
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
            f"no checkpoint of {workdir} is whole ({'; '.join(damages.values())}): restore one from a copy, or train anew in "
            "another workdir"
        )
    return None, {}


def put_aside(workdir: epath.PathLike, steps: Iterable[int]) -> None:
    """Moves checkpoints to `<workdir>/damaged/<step>`, so that the run can save these steps again."""
    aside = epath.Path(workdir) / DAMAGED
    for step in steps:
        aside.mkdir(exist_ok=True)
        if (aside / str(step)).exists():
            (aside / str(step)).rmtree()
        (epath.Path(workdir) / DIRECTORY / str(step)).rename(aside / str(step))
