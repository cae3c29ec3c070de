"""Several processes that train together, on this machine; they are killed whatever becomes of the test."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.training.runs import COMPILE_FASTER
from tests.training.tiny import PATH

TRAIN = "import sys; from resnet_jax.cli import main; sys.exit(main(['train', *sys.argv[1:]]))"
IMPATIENT = "import resnet_jax.parallel.watchdog as w; w.PATIENCE, w.INTERVAL = 10.0, 1.0\n"
"""As long as the default would only make tests wait."""

Ended = tuple[int, str, str]
"""Exit code, stdout, stderr."""


@contextlib.contextmanager
def started(
    workdir: Path,
    count: int,
    *arguments: str,
    config: str = str(PATH),
    each: dict[int, tuple[str, ...]] | None = None,
    program: str = TRAIN,
) -> Iterator[list[subprocess.Popen[str]]]:
    """Starts `count` processes of one run; one of them alone takes no flags for it.

    Args:
        workdir: Of the run.
        count: Of processes.
        arguments: Of all.
        config: The recipe.
        each: More arguments, by process.
        program: What they run.
    """
    address = f"127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PATH.parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    environment["PYTHONUNBUFFERED"] = "1"  # So that a killed process has printed what it said.
    environment["XLA_FLAGS"] = COMPILE_FASTER
    running: list[subprocess.Popen[str]] = []
    try:
        for index in range(count):
            place = (
                [f"--coordinator={address}", f"--processes={count}", f"--process={index}"]
                if count > 1
                else []
            )
            command = [
                sys.executable,
                "-c",
                IMPATIENT + program,
                f"--config={config}",
                f"--workdir={workdir}",
                *place,
                *arguments,
            ]
            command += (each or {}).get(index, ())
            pipe = subprocess.PIPE
            running.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def finish(running: list[subprocess.Popen[str]], timeout: float = 240) -> list[Ended]:
    """Waits for all to end by themselves."""
    ended = []
    for process in running:
        out, err = process.communicate(timeout=timeout)
        ended.append((process.returncode, out, err))
    return ended


def kill(running: list[subprocess.Popen[str]], victim: int) -> None:
    """Kills a process, and checks that within a minute the others are gone too and have said whom they
    miss."""
    running[victim].kill()
    running[victim].communicate()
    for code, _, err in finish(
        [process for process in running if process is not running[victim]], timeout=60
    ):
        assert code not in (0, 75)
        assert re.search(rf"process {victim} \(.*process id {running[victim].pid}\).* is gone", err), err


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
