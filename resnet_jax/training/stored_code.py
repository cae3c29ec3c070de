"""Checkpoints and configs of runs, read for use: code that they name is trusted, or refused."""

import dataclasses
import os

from etils import epath

from resnet_jax.files import as_path
from resnet_jax.models.trusted_code import require_trust
from resnet_jax.training.checkpoints import Checkpoint, read_checkpoint
from resnet_jax.training.config import Config, all_fields, flat_fields, from_json
from resnet_jax.training.workdir import read_config


def read_trusted_checkpoint(
    workdir: epath.PathLike, step: int | None = None, *, whole_task: bool = False
) -> Checkpoint:
    """Returns a checkpoint whose network may be built.

    Args:
        workdir: Directory of the run.
        step: Checkpoint to read. Defaults to the newest.
        whole_task: Whether its optimizer, schedule, loss and task are built as well.

    Raises:
        CheckpointError: There is none, or it is damaged.
        UntrustedCodeError: It names code that is not trusted; see `resnet_jax.models.trusted_code`.
    """
    checkpoint = read_checkpoint(workdir, step)
    require_trust(checkpoint.model, str(workdir))
    if whole_task:
        require_trust(code_fields(from_json(checkpoint.config)), str(workdir))
    model = checkpoint.model
    if lies_within(model.get("code_dir"), workdir):
        model = {name: value for name, value in model.items() if name != "code_dir"}
    return dataclasses.replace(checkpoint, model=model)


def read_trusted_config(workdir: epath.PathLike) -> Config:
    """Returns the config of a run whose fields are taken over by another.

    Raises:
        WorkdirError: There is none, or it is not one.
        UntrustedCodeError: It names code that is not trusted.
    """
    config = read_config(workdir)
    require_trust(code_fields(config), str(workdir))
    return config


def code_fields(config: Config) -> dict[str, object]:
    """Returns the values of the fields that may name code, by path."""
    fields = all_fields()
    return {path: value for path, value in flat_fields(config).items() if fields[path].code}


def lies_within(directory: str | None, workdir: epath.PathLike) -> bool:
    """Returns whether a stored `code_dir` lies in the workdir itself, which may have been downloaded.

    Nothing of a download is put on Python's path.
    """
    if not directory:
        return False
    inside = os.path.realpath(as_path(workdir))
    return f"{os.path.realpath(directory)}/".startswith(f"{inside}/")
