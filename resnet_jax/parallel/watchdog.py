"""Ends this process when another one of the run is gone: its collectives would wait forever.

Every process counts up a number in the key-value store of the run's coordinator; a number that stands still
for PATIENCE seconds of this process's own monotonic clock is that of a process that is gone. A process that
ends on its own announces it instead. JAX has a heartbeat too, which aborts without naming anyone in terms of
the run: it is set to be the slower of the two.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypedDict

from resnet_jax.errors import FAILED

PATIENCE = 20.0
"""Seconds without a sign of life after which a process counts as gone."""

INTERVAL = 2.0
FAREWELL = 10.0
_ADVICE = "start all again to go on from the last checkpoint"
_SIGNS, _NAMES, _WORD, _HEARD = (f"resnet_jax/{name}" for name in ("signs", "names", "word", "heard"))
_LISTENING_MS = 60_000


class Word(TypedDict):
    """Why a process ends: its exit code, the reason, and how many processes are gone without a word."""

    code: int
    reason: str
    gone: int


class Watch:
    """Two threads: one counts the signs of life of all processes, one waits for word of one that ends.

    Args:
        client: Client of JAX's coordination service.
        index: Number of this process.
        count: Number of all processes.
        name: Name of this process for people: its host and process id.
        coordinator: HOST:PORT of the first process.
    """

    def __init__(self, client: Any, *, index: int, count: int, name: str, coordinator: str) -> None:
        self._client, self._index, self._count = client, index, count
        self._over = threading.Event()
        self._speaking = threading.Lock()
        self._coordinator = coordinator
        self._leaving: int | None = None
        client.key_value_set(f"{_NAMES}/{index}", name)
        self._names = {index: name, 0: client.blocking_key_value_get(f"{_NAMES}/0", _LISTENING_MS)}
        if index:
            on_abort(self._aborting)
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._give_signs, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the watch, because all end in order: from here on others may go."""
        self._over.set()
        with contextlib.suppress(Exception):
            # Wakes those that listen.
            self._client.key_value_set(_WORD, json.dumps(None), allow_overwrite=True)
        for thread in self._threads:
            thread.join(FAREWELL)  # A thread inside JAX when the interpreter ends would bring it down.
        signal.signal(signal.SIGABRT, signal.SIG_DFL)

    def tell(self, code: int, reason: str) -> None:
        """Leaves word that this process ends, and waits until the others have heard, or FAREWELL seconds."""
        self._over.set()
        self._leave(
            {"code": code, "reason": f"{self._describe(self._index)} ended: {reason}", "gone": 0},
            pass_on=True,
        )

    def _leave(self, word: Word, *, pass_on: bool) -> None:
        self._leaving = word["code"]
        deadline = time.monotonic() + FAREWELL
        with contextlib.suppress(Exception):
            if pass_on:
                self._client.key_value_set(_WORD, json.dumps(word), allow_overwrite=True)
            self._client.key_value_set(f"{_HEARD}/{self._index}", "")
            # If the coordinator ends before all have heard, the reason is lost.
            while (
                time.monotonic() < deadline
                and len(self._client.key_value_dir_get(_HEARD)) < self._count - word["gone"]
            ):
                time.sleep(0.1)

    def _give_signs(self) -> None:
        last: dict[int, tuple[str, float]] = {}
        number = 0
        while not self._over.wait(INTERVAL):
            number += 1
            try:
                self._client.key_value_set(f"{_SIGNS}/{self._index}", str(number), allow_overwrite=True)
                signs = self._directory(_SIGNS)
                self._names |= self._directory(_NAMES) if len(self._names) < self._count else {}
            except Exception:
                self._coordinator_is_gone()
                return
            now = time.monotonic()
            for process in range(self._count):
                sign = signs.get(process, "")
                if process not in last or last[process][0] != sign:
                    last[process] = sign, now
            gone = [process for process, (_, since) in last.items() if now - since > PATIENCE]
            if gone and self._index not in gone:
                reason = (
                    f"{', '.join(map(self._describe, gone))} gave no sign of life for {PATIENCE:.0f} s and "
                    f"is gone; {_ADVICE}"
                )
                self._end({"code": FAILED, "reason": reason, "gone": len(gone)}, pass_on=True)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                word = json.loads(self._client.blocking_key_value_get(_WORD, _LISTENING_MS))
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    self._coordinator_is_gone()
                continue
            if word is None:
                return
            self._end(word, pass_on=False)

    def _directory(self, name: str) -> dict[int, str]:
        return {int(key.rpartition("/")[2]): value for key, value in self._client.key_value_dir_get(name)}

    def _describe(self, process: int) -> str:
        return (
            f"process {process} ({self._names[process]})" if process in self._names else f"process {process}"
        )

    def _coordinator_is_gone(self) -> None:
        # There is nobody to ask.
        self._end(
            {
                "code": FAILED,
                "reason": f"{self._describe(0)}, which the others find each other through, is gone; "
                f"{_ADVICE}",
                "gone": self._count,
            },
            pass_on=False,
        )

    def _aborting(self) -> None:
        if self._leaving is not None:
            os._exit(self._leaving)
        host, _, port = self._coordinator.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=INTERVAL).close()
        except OSError:
            self._coordinator_is_gone()

    def _end(self, word: Word, *, pass_on: bool) -> None:
        with self._speaking:
            if self._over.is_set():
                return
            self._over.set()
        # The main thread may be in a collective that never returns.
        os.write(2, f"resnet-jax: {word['reason']}\n".encode(errors="backslashreplace"))
        if word["gone"] < self._count:
            self._leave(word, pass_on=pass_on)
        os._exit(word["code"])


def on_abort(speak: Callable[[], None]) -> None:
    """Makes abort() call a function first: JAX aborts when the coordinator is gone, and runs no handler."""
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: speak())
    _KEPT.append(handler)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))


_KEPT: list[object] = []  # Callbacks that the C library holds on to.
