"""A workdir holds one run: config, metrics.jsonl, wall_time.json, checkpoints/, TensorBoard events, curves.

One process owns it.
"""

import contextlib
from collections.abc import Iterator

import filelock
from etils import epath

from resnet_jax.console import print_note
from resnet_jax.data.datasets import is_path
from resnet_jax.errors import UsageError
from resnet_jax.files import as_path, is_junk, is_partial, read_json, write_json
from resnet_jax.lease import Lease, LeaseHeldError
from resnet_jax.object_storage import is_url
from resnet_jax.training.checkpoints import steps_in
from resnet_jax.training.config import (
    FORMAT_VERSION,
    Config,
    from_json,
    recipe_differences,
    to_json,
    with_fields,
)
from resnet_jax.training.config_fields import ConfigError

CONFIG, METRICS, CURVES, TENSORBOARD = "config.json", "metrics.jsonl", "curves.png", "tensorboard"
LOCK = ".lock"


class WorkdirError(UsageError):
    """A workdir that is not there, not a run's, of another recipe, or in use.

    The message says which and what to do.
    """


@contextlib.contextmanager
def occupy(workdir: epath.PathLike) -> Iterator[epath.Path]:
    """Makes the directory, keeps other runs out while the block runs, and yields its path.

    The lock is the operating system's, so that it goes with the process however that ends. In object storage
    it is a lease that expires.

    Raises:
        WorkdirError: Another run is live on it, it holds something else, or it cannot be written.
    """
    path = as_path(workdir)
    with contextlib.ExitStack() as stack:
        try:
            entries = [
                name
                for name in _names_in(path)
                if name != LOCK and not is_partial(name) and not is_junk(name)
            ]
            if entries and CONFIG not in entries:
                raise WorkdirError(
                    f"{path} is not empty and holds no {CONFIG}, so it is not the workdir of a run (it has "
                    f"{entries[0]}); choose another --workdir"
                )
            if is_url(path):
                stack.enter_context(Lease(f"{path}/{LOCK}", print_note))
            else:
                stack.enter_context(filelock.FileLock(path / LOCK, timeout=0))
        except LeaseHeldError as error:
            raise WorkdirError(
                f"{path} is in use: {error}; stop that run (SIGTERM saves it), or choose another --workdir"
            ) from None
        except filelock.Timeout:
            raise WorkdirError(
                f"a run is live on {path}; wait for it or stop it (Ctrl-C saves it), or choose another "
                "--workdir"
            ) from None
        except OSError as error:
            raise WorkdirError(
                f"workdir {path} cannot be used: {error.strerror or error}; choose another --workdir"
            ) from error
        yield path


def _names_in(path: epath.Path) -> list[str]:
    """Returns the names of what is in a workdir, which is made if it is local."""
    if not is_url(path):
        path.mkdir(parents=True, exist_ok=True)
        return [entry.name for entry in path.iterdir()]
    if not str(path).startswith("gs://"):
        raise WorkdirError(
            f"workdir {path} cannot be used: checkpoints go to a disk or to Google Cloud Storage (gs://); "
            "data may be read from other stores"
        )
    try:
        return [entry.name for entry in path.iterdir()]
    except FileNotFoundError:
        return []  # A directory of an object store is there when something is in it.


def store_config(workdir: epath.Path, config: Config) -> bool:
    """Writes the config of a run, and returns whether its data lies elsewhere than before.

    The workdir belongs to its recipe once it holds a checkpoint, and not before. Where an image folder or a
    prepared set lies is no part of the recipe.

    Raises:
        WorkdirError: The workdir holds checkpoints of another recipe; the fields that differ are listed.
    """
    moved = False
    if (workdir / CONFIG).exists():
        stored = read_config(workdir)
        moved = stored.data.source != config.data.source and _is_place(stored) and _is_place(config)
        if moved:
            stored = with_fields(stored, {"data.source": config.data.source})
        if stored.initial.source and config.initial.source:  # Its weights are in the checkpoints.
            stored = with_fields(stored, {"initial.source": config.initial.source})
        differences = recipe_differences(stored, config)
        if differences and steps_in(workdir):
            raise WorkdirError(
                f"{workdir} holds a run of another recipe: {'; '.join(differences)}; choose another "
                "--workdir, or give the old values (fields under `run` may change)"
            )
    write_json(workdir / CONFIG, {"format_version": FORMAT_VERSION, **to_json(config)}, indent=2)
    return moved


def _is_place(config: Config) -> bool:
    source = config.data.source or ""
    return "/" in source or "\\" in source or source.startswith("~") or is_path(source)


def read_config(workdir: epath.PathLike) -> Config:
    """Returns the config of a run, which may be stored in an older format.

    Raises:
        WorkdirError: There is none, or it is not one.
    """
    path = as_path(workdir) / CONFIG
    if not path.exists():
        raise WorkdirError(
            f"{workdir} is not the workdir of a run: it holds no {CONFIG}; train one with `resnet-jax train`"
        )
    try:
        stored = read_json(path)
        version = stored.pop("format_version")
        if version <= FORMAT_VERSION:
            return from_json(stored)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        reason = f": {error}" if isinstance(error, ConfigError) else ""
        raise WorkdirError(f"{path} is not the config of a run{reason}; choose another workdir") from error
    raise WorkdirError(
        f"{path} has format {version}; this version reads up to {FORMAT_VERSION}: upgrade resnet-jax"
    )
