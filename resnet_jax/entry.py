"""The way in from a command line: flags, and every failure as one line that says what to do.

Exit codes: 0 done; 1 the run failed (its loss diverged, the disk is full); 2 a mistake in what was asked for; 75 stopped and
saved, run the same command again to go on.
"""

import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence

import absl.logging

from resnet_jax.data import DataError
from resnet_jax.evaluation.predict import UnreadableError
from resnet_jax.evaluation.views import ProtocolError
from resnet_jax.interop.foreign import InteropError
from resnet_jax.models import ModelError
from resnet_jax.paper import PaperError
from resnet_jax.parallel import DeviceError
from resnet_jax.recipes import DEFAULT, load_recipe, recipe_name, recipes
from resnet_jax.training.checkpoints import CheckpointError, SaveError
from resnet_jax.training.config import ConfigError
from resnet_jax.training.run import DivergedError, Interrupted, run
from resnet_jax.training.workdir import WorkdirError

DONE, FAILED, MISTAKE, RESUMABLE = 0, 1, 2, 75
MISTAKES = (ConfigError, ModelError, DeviceError, DataError, WorkdirError, CheckpointError, InteropError, ProtocolError, PaperError)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


HELP = """Trains a net, or goes on with the run that the workdir holds.

  python train.py
  python train.py --config=digits_resnet20 --config.seed=1 --workdir=runs/seed1
  python train.py --config=my_recipe.py --config.optimizer.learning_rate=0.05 --config.run.steps=500

  --config=NAME or FILE.py    the recipe; names are {recipes}
  --config.FIELD=VALUE        another value for one of its fields; resnet_jax/training/config.py lists them
  --workdir=DIR               where the run is kept; default runs/NAME of the recipe

Ctrl-C and SIGTERM save and stop; the same command goes on from there. Exit codes: 0 done, 1 failed, 2 a mistake in the command,
75 stopped and saved."""


def guard(command: Callable[[], None]) -> int:
    """Runs a command and returns the exit code; where it fails, prints the reason in one line on stderr."""
    _quieten_libraries()
    try:
        command()
    except Interrupted as stop:
        return _end(RESUMABLE, stop)
    except MISTAKES as error:
        return _end(MISTAKE, error)
    except (DivergedError, SaveError, UnreadableError) as error:
        return _end(FAILED, error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _end(
            FAILED,
            f"{error.strerror}{where}; see to the disk and run the same command again: a run goes on from its last checkpoint",
        )
    except KeyboardInterrupt:
        return _end(130, "stopped before anything was saved")
    return DONE


def _quieten_libraries() -> None:
    """Keeps from the user what Orbax logs in its threads and tasks, until the process ends: its errors are raised as well."""
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # "Task exception was never retrieved", when several arrays fail
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None


def train(argv: Sequence[str]) -> int:
    """Parses the arguments of train.py, trains, and returns the exit code."""
    if {"--help", "-h"} & set(argv):
        print(HELP.format(recipes=", ".join(recipes())))
        return DONE

    def command() -> None:
        spec, overrides, workdir = parse(argv)
        run(load_recipe(spec, overrides), workdir or f"runs/{recipe_name(spec)}")

    return guard(command)


def parse(argv: Sequence[str]) -> tuple[str, list[tuple[str, str]], str]:
    """Returns the recipe, the fields to change, and the workdir (empty where it is not given) of `--flag=value` arguments.

    Raises:
        ConfigError: A flag does not exist or has no value.
    """
    spec, overrides, workdir = DEFAULT, [], ""
    rest = list(argv)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag not in ("--config", "--workdir") and not flag.startswith("--config."):
            raise ConfigError(f"unknown argument {flag!r}; allowed are --config=…, --config.FIELD=… and --workdir=… (see --help)")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{flag} needs a value: {flag}=…")
            value = rest.pop(0)
        if flag == "--config":
            spec = value
        elif flag == "--workdir":
            workdir = value
        else:
            overrides.append((flag.removeprefix("--config."), value))
    return spec, overrides, workdir


def _end(code: int, reason: object) -> int:
    print(f"resnet-jax: {reason}", file=sys.stderr)
    return code
