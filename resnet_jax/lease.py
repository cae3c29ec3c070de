"""A lease on a workdir in object storage, in the place of a lock that the operating system would hold.

The lease is an object that its holder rewrites every RENEWAL seconds. Whoever sees it stand still for EXPIRY
seconds of their own monotonic clock takes it over, at once if the process that wrote it is known to be gone.
A write of the lease depends on the generation that it replaces, so of two that try one succeeds. A holder
that could not rewrite it for TRUST seconds, less than EXPIRY, writes nothing into the workdir until it has;
if somebody else has taken it over, it never does.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypedDict

from resnet_jax.errors import ResNetError, UsageError
from resnet_jax.object_storage import (
    ConflictError,
    Generation,
    delete_versioned,
    read_versioned,
    write_versioned,
)

RENEWAL, TRUST, EXPIRY = 15.0, 40.0, 60.0
"""Seconds after which the lease is rewritten, is no longer trusted, and is free for others."""

_POLL = 3.0


_HELD: dict[str, "Lease"] = {}  # By the URL of the workdir.


def confirm_ownership(workdir: str | os.PathLike[str]) -> None:
    """Returns if this process may write into a workdir; call it before every write into object storage.

    Raises:
        LeaseLostError: Another run has taken over the lease on it.
    """
    if lease := _HELD.get(os.fspath(workdir)):
        lease.confirm()


class LeaseHeldError(UsageError):
    """Another run holds the lease; the message says where it runs."""


class LeaseLostError(ResNetError):
    """Another run has taken the lease over, because this one could not renew it in time."""


class Holder(TypedDict):
    """Who holds a lease: a name that is unique, a number that rises, and the process."""

    name: str
    count: int
    host: str
    pid: int
    process: str | None


class Lease:
    """A lease that is taken when the block begins, renewed by a thread, and given back when it ends.

    Args:
        url: URL of the object that stands for it, in Google Cloud Storage.
        say: Is called with a line for the person when another holder is waited for.
    """

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self._url, self._say = url, say
        self._me: Holder = {"name": secrets.token_hex(8), "count": 0, **_this_process()}
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._generation: Generation | None = None
        self._renewed = 0.0
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._renew_often, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        """Takes the lease, and waits for its expiry if it may have been left.

        Raises:
            LeaseHeldError: Another run holds it.
        """
        announced = False
        while not self._try_to_take():
            found = read_versioned(self._url)
            if found is None:
                continue
            holder = _holder_of(found[0])
            if _is_here(holder) and not _is_gone(holder):
                raise LeaseHeldError(_live(holder))
            if not _is_gone(holder):
                if not announced:
                    self._say(
                        f"{self._url} is the lease of a run on {holder['host']}: it is taken over if it is "
                        f"not renewed within {EXPIRY:.0f} seconds"
                    )
                announced = True
                self._wait_for_expiry(holder, found[1])
            self._replace(found[1])
        self._thread.start()
        _HELD[self._url.rpartition("/")[0]] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the lease back. If that fails it expires by itself."""
        self._over.set()
        _HELD.pop(self._url.rpartition("/")[0], None)
        with self._writing, contextlib.suppress(Exception):
            if self._generation and not self._lost:
                delete_versioned(self._url, self._generation)

    def confirm(self) -> None:
        """Returns if this process holds the lease and nobody else can take it within EXPIRY - TRUST seconds.

        Raises:
            LeaseLostError: Another run has taken it over.
        """
        if not self._lost and _now() - self._renewed > TRUST:
            self._renew()
        if self._lost:
            raise LeaseLostError(
                f"{self._url} was taken over by a run on {self._lost}, because this one could not renew it "
                f"for {EXPIRY:.0f} seconds; this run ends and leaves the workdir to the other"
            )

    def _try_to_take(self) -> bool:
        """Returns whether the lease is held, having created it if there was none."""
        if self._generation is None:
            self._replace(None)
        return self._generation is not None

    def _replace(self, generation: Generation | None) -> None:
        """Writes the lease in the place of one of a generation, if that is still there."""
        self._me["count"] += 1
        began = _now()
        with contextlib.suppress(ConflictError):
            self._generation = write_versioned(self._url, json.dumps(self._me).encode(), generation)
            self._renewed = began

    def _wait_for_expiry(self, holder: Holder, generation: Generation) -> None:
        began = _now()
        while _now() - began < EXPIRY:
            time.sleep(_POLL)
            found = read_versioned(self._url)
            if found is None:
                return
            if found[1] != generation:
                raise LeaseHeldError(_live(holder))

    def _renew(self) -> None:
        with self._writing:
            if self._over.is_set():
                return
            while not self._lost:
                began = _now()
                self._me["count"] += 1
                try:
                    self._generation = write_versioned(
                        self._url, json.dumps(self._me).encode(), self._generation
                    )
                except ConflictError:
                    found = read_versioned(self._url)
                    holder = _holder_of(found[0]) if found else None
                    if found and holder and holder["name"] == self._me["name"]:
                        self._generation = found[1]  # An earlier write of this one, whose reply was lost.
                    else:
                        self._lost = holder["host"] if holder else "another machine"
                else:
                    self._renewed = began
                    return

    def _renew_often(self) -> None:
        pause = RENEWAL
        while not self._over.wait(pause):
            try:
                self._renew()
                pause = RENEWAL
            except Exception:  # The network, of whatever kind: again, soon; `confirm` decides.
                pause = _POLL


def _now() -> float:
    """Returns seconds of a clock that counts while the machine sleeps too, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _live(holder: Holder) -> str:
    return f"a run is live there (process {holder['pid']} on {holder['host']})"


def _holder_of(data: bytes) -> Holder:
    try:
        found = json.loads(data)
        return {
            "name": str(found["name"]),
            "count": int(found["count"]),
            "host": str(found["host"]),
            "pid": int(found["pid"]),
            "process": found["process"],
        }
    except (ValueError, KeyError, TypeError):
        return {"name": "", "count": 0, "host": "an unknown machine", "pid": 0, "process": None}


class _Process(TypedDict):
    host: str
    pid: int
    process: str | None


def _this_process() -> _Process:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "process": _identify(pid)}


def _identify(pid: int) -> str | None:
    """Returns what tells a process from every other one: boot, PID namespace and start; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        state, started = fields[0], fields[19]
    except OSError:
        return None
    return None if state in "ZX" else f"{boot} {namespace} {started}"


def _is_here(holder: Holder) -> bool:
    """Returns whether a holder's process, gone or not, would be seen by this one."""
    mine = _identify(os.getpid())
    if not mine or not holder["process"]:
        return False
    return mine.split()[:2] == holder["process"].split()[:2]


def _is_gone(holder: Holder) -> bool:
    return _is_here(holder) and _identify(holder["pid"]) != holder["process"]
