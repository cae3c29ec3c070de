"""The way in from a command line: flags, and every failure as one line that says what to do.

Exit codes: 0 done; 1 the run failed (its loss diverged, the disk is full); 2 a mistake in what was asked for; 75 stopped and
saved, run the same command again to go on.
"""

import dataclasses
import errno
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

import absl.logging

from resnet_jax.data.errors import DataError
from resnet_jax.evaluation.predict import UnreadableError
from resnet_jax.evaluation.protocols import ProtocolError
from resnet_jax.interop.foreign import InteropError
from resnet_jax.models import ModelError
from resnet_jax.paper import PaperError
from resnet_jax.parallel import DeviceError, ProcessError, Processes
from resnet_jax.training.checkpoints import CheckpointError, SaveError
from resnet_jax.training.config_fields import ConfigError
from resnet_jax.training.loop import DivergedError, Interrupted
from resnet_jax.training.recipes import DEFAULT, load_recipe, recipe_name, recipes
from resnet_jax.training.run import run
from resnet_jax.training.workdir import WorkdirError

DONE, FAILED, MISTAKE, RESUMABLE = 0, 1, 2, 75
MISTAKES = (
    ConfigError,
    ModelError,
    DeviceError,
    DataError,
    WorkdirError,
    CheckpointError,
    InteropError,
    PaperError,
    ProcessError,
    ProtocolError,
)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)

NUMBERS = ("--processes", "--process")
FLAGS = {
    "--config": "spec",
    "--workdir": "workdir",
    "--coordinator": "coordinator",
    "--processes": "processes",
    "--process": "process",
}

HELP = """Trains a net, or goes on with the run that the workdir holds.

  python train.py
  python train.py --config=digits_resnet20 --config.seed=1 --workdir=runs/seed1
  python train.py --config=my_recipe.py --config.optimizer.learning_rate=0.05 --config.run.steps=500

  --config=NAME or FILE.py    the recipe; names are {recipes}
  --config.FIELD=VALUE        another value for one of its fields; resnet_jax/training/config.py lists them
  --workdir=DIR               where the run is kept; default runs/NAME of the recipe, the same for all processes
  --coordinator=HOST:PORT     of the first of several processes, where the others find it
  --processes=N               that train together; each is started with the same command but for
  --process=I                 its number, from 0. On Cloud TPU, SLURM and in indexed jobs of Kubernetes none of the three is
                              needed; --processes=1 trains on one alone there too

Ctrl-C and SIGTERM save and stop; the same command goes on from there. Exit codes: 0 done, 1 failed, 2 a mistake in the command,
75 stopped and saved."""


def guard(command: Callable[[], None], processes: Processes | None = None) -> int:
    """Runs a command and returns the exit code; where it fails, prints the reason in one line on stderr.

    Args:
        command: Whose exceptions are told.
        processes: That are parted from after it: those that are not told of a failure would wait for this one.
    """
    _quieten_libraries()
    code, reason = _attempt(command, processes or Processes())
    if reason:
        print(f"resnet-jax: {reason}", file=sys.stderr)
    if processes:
        processes.part(code, "" if code in (DONE, RESUMABLE) else reason or "its output was closed")
    return code


def _attempt(command: Callable[[], None], processes: Processes) -> tuple[int, str]:
    """Returns the exit code of a command, and the reason where it is not DONE."""
    try:
        command()
    except Interrupted as stop:
        return RESUMABLE, str(stop)
    except MISTAKES as error:
        return MISTAKE, str(error)
    except SaveError as error:
        processes.await_verdict()
        return FAILED, str(error)
    except (DivergedError, UnreadableError) as error:
        return FAILED, str(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED, ""
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return (
            FAILED,
            f"{error.strerror}{where}; see to the disk and run the same command again: a run goes on from its last checkpoint",
        )
    except KeyboardInterrupt:
        return 130, "stopped before anything was saved"
    except Exception as error:
        if processes.count == 1:
            raise
        processes.await_verdict()
        traceback.print_exc()
        return FAILED, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return DONE, ""


def _quieten_libraries() -> None:
    """Keeps from the user what Orbax logs in its threads and tasks, until the process ends: its errors are raised as well."""
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(
        logging.CRITICAL
    )  # "Task exception was never retrieved", when several arrays fail
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None


def train(argv: Sequence[str]) -> int:
    """Parses the arguments of train.py, trains, and returns the exit code."""
    if {"--help", "-h"} & set(argv):
        print(HELP.format(recipes=", ".join(recipes())))
        return DONE

    processes = Processes()

    def command() -> None:
        given = parse(argv)
        processes.join(coordinator=given.coordinator, count=given.processes, index=given.process)
        config = load_recipe(given.spec, given.overrides)
        run(config, given.workdir or f"runs/{recipe_name(given.spec)}", processes=processes)

    return guard(command, processes)


@dataclasses.dataclass
class Arguments:
    """Of train.py.

    Attributes:
        spec: The recipe.
        overrides: Fields to change, as text.
        workdir: Empty where it is not given.
        coordinator, processes, process: Where several train together, see Processes.join.
    """

    spec: str = DEFAULT
    overrides: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    workdir: str = ""
    coordinator: str = ""
    processes: int | None = None
    process: int | None = None


def parse(argv: Sequence[str]) -> Arguments:
    """Returns what `--flag=value` arguments say.

    Raises:
        ConfigError: A flag does not exist, has no value, or one that is not a number.
    """
    found = Arguments()
    rest = list(argv)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag not in FLAGS and not flag.startswith("--config."):
            raise ConfigError(
                f"unknown argument {flag!r}; allowed are --config.FIELD=…, {', '.join(f'{name}=…' for name in FLAGS)} (see --help)"
            )
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{flag} needs a value: {flag}=…")
            value = rest.pop(0)
        if flag in NUMBERS:
            if not value.isdigit():
                raise ConfigError(f"{flag} is {value!r}; it must be a number")
            setattr(found, FLAGS[flag], int(value))
        elif flag in FLAGS:
            setattr(found, FLAGS[flag], value)
        else:
            found.overrides.append((flag.removeprefix("--config."), value))
    return found
