"""Notices that another process of the run is gone, and ends this one, whose collectives would wait for it for ever.

Every process counts up a number in the key-value store of the run's coordinator; a number that stands still for PATIENCE seconds
of this process's own monotonic clock is that of a process that is gone. A process that ends by itself leaves word instead. JAX has
a heartbeat too, which aborts without naming anyone in terms of the run: it is set to be the slower of the two.
"""

import json
import os
import threading
import time
from typing import Any

PATIENCE = 20.0
"""Seconds without a sign of life after which a process counts as gone."""

INTERVAL = 2.0
FAREWELL = 10.0
FAILED = 1
_SIGNS, _NAMES, _WORD, _HEARD = (f"resnet_jax/{name}" for name in ("signs", "names", "word", "heard"))
_LISTENING_MS = 60_000


class Watch:
    """Two threads: one gives signs of life and counts those of the others, one waits for the word of a process that ends.

    Args:
        client: Of JAX's coordination service.
        index: Of this process.
        count: Of all.
        name: Of this process, for people: its host and process id.
    """

    def __init__(self, client: Any, *, index: int, count: int, name: str) -> None:
        self._client, self._index, self._count = client, index, count
        self._over = threading.Event()
        client.key_value_set(f"{_NAMES}/{index}", name)
        self._names = {0: "the coordinator"}
        for target in (self._give_signs, self._listen):
            threading.Thread(target=target, daemon=True, name=f"watchdog {target.__name__}").start()

    def close(self) -> None:
        """Ends the watch: from here on others may go."""
        self._over.set()

    def tell(self, code: int, reason: str) -> None:
        """Leaves word that this process ends, and waits until the others have heard, or FAREWELL seconds."""
        self.close()
        deadline = time.monotonic() + FAREWELL
        try:
            word = json.dumps({"process": self._index, "code": code, "reason": reason})
            self._client.key_value_set(f"{_HEARD}/{self._index}", "")
            self._client.key_value_set(_WORD, word, allow_overwrite=True)
            while time.monotonic() < deadline and len(self._client.key_value_dir_get(_HEARD)) < self._count:
                time.sleep(0.1)
        except Exception:  # The coordinator is gone, and the others with it.
            return

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
                return self._coordinator_is_gone()
            now = time.monotonic()
            for process in range(self._count):
                sign = signs.get(process, "")
                if process not in last or last[process][0] != sign:
                    last[process] = sign, now
            gone = [process for process, (_, since) in last.items() if now - since > PATIENCE]
            if gone and self._index not in gone:
                self._end(f"{', '.join(map(self._describe, gone))} gave no sign of life for {PATIENCE:.0f} s and is gone")
        return None

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                word = json.loads(self._client.blocking_key_value_get(_WORD, _LISTENING_MS))
            except Exception as error:
                if "DEADLINE_EXCEEDED" in str(error):
                    continue
                return self._coordinator_is_gone()
            if not self._over.is_set():
                self._client.key_value_set(f"{_HEARD}/{self._index}", "")
                self._end(f"{self._describe(word['process'])} ended: {word['reason']}", code=word["code"], advice="")
        return None

    def _directory(self, name: str) -> dict[int, str]:
        return {int(key.rpartition("/")[2]): value for key, value in self._client.key_value_dir_get(name)}

    def _describe(self, process: int) -> str:
        return f"process {process} ({self._names[process]})" if process in self._names else f"process {process}"

    def _coordinator_is_gone(self) -> None:
        self._end(f"{self._describe(0)}, which the others find each other through, is gone")

    def _end(self, reason: str, *, code: int = FAILED, advice: str = "start all again to go on from the last checkpoint") -> None:
        """Ends this process at once: its main thread may be in a collective that never returns."""
        if not self._over.is_set():
            text = f"resnet-jax: {reason}; {advice}" if advice else f"resnet-jax: {reason}"
            os.write(2, f"{text}\n".encode())
            os._exit(code)
