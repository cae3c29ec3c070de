"""Runs a launch script in a world of stand-ins."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LAUNCH = Path(__file__).parents[2] / "launch"
STAND_IN = Path(__file__).with_name("stand_in.py")
HEARING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp('bash', sys.argv[1:])"
)
"""Runs a program that hears Ctrl-C: in the background of a shell tests do not, and bash cannot undo that."""


class World:
    """A folder with stand-ins for programs, what they shall do, and what they were asked.

    Args:
        folder: An empty folder.
        programs: Programs that are stood in for: shell scripts; empty is the one of `stand_in`.
        plan: The outcomes of each kind of call, in order; what is not named goes well.
    """

    def __init__(
        self, folder: Path, programs: dict[str, str], plan: dict[str, list[object]] | None = None
    ) -> None:
        self.folder = folder
        for name in ("bin", "processes"):
            (folder / name).mkdir(parents=True)
        (folder / "plan.json").write_text(json.dumps(plan or {}))
        (folder / "calls.txt").touch()
        python = shlex.quote(sys.executable)
        for name, text in programs.items():
            file = folder / "bin" / name
            own = f'exec {python} -SEs {shlex.quote(str(STAND_IN))} {name} "$@"'
            file.write_text(f"#!/bin/sh\n{text or own}\n")
            file.chmod(0o755)

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts a script of the folder `launch`, in a process group of its own."""
        path = f"{self.folder / 'bin'}:/usr/bin:/bin"
        names = {"PATH": path, "HOME": str(self.folder), "STAND_IN": str(self.folder), "WAIT": "0.02"}
        return subprocess.Popen(
            [sys.executable, "-SEsc", HEARING, "bash", str(LAUNCH / script), *arguments],
            cwd=self.folder,
            env=names | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str]:
        """Runs a script; returns its exit code and what it printed."""
        process = self.start(script, *arguments, **environment)
        return self._finish(process)

    def interrupt(
        self, process: subprocess.Popen[str], when: Callable[[], bool], number: int = signal.SIGINT
    ) -> tuple[int, str]:
        """Sends a signal to the script's process group at a moment, as a terminal does."""
        self.send(process, when, number)
        return self.end(process)

    def send(self, process: subprocess.Popen[str], when: Callable[[], bool], number: int) -> None:
        """Sends a signal to the script's process group at a moment."""
        self.wait_for(process, when)
        os.killpg(process.pid, number)

    def end(self, process: subprocess.Popen[str], when: Callable[[], bool] = lambda: True) -> tuple[int, str]:
        """Waits for a moment and then for the script's end; returns its exit code and what it printed."""
        self.wait_for(process, when)
        return self._finish(process)

    @staticmethod
    def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
        try:
            output, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output

    @staticmethod
    def wait_for(process: subprocess.Popen[str], when: Callable[[], bool]) -> None:
        """Waits until something is so, while the script runs."""
        deadline = time.monotonic() + 30
        while not when():
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError(process.communicate()[0])
            assert process.poll() is None or when(), process.communicate()[0]
            time.sleep(0.01)

    @property
    def calls(self) -> list[str]:
        """What was asked of the stand-ins, in order."""
        return (self.folder / "calls.txt").read_text().splitlines()

    def count(self, beginning: str) -> int:
        """Returns how many calls begin so."""
        return sum(call.startswith(beginning) for call in self.calls)
