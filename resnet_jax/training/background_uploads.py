"""Uploads again and again in the background, so that a run does not wait for object storage."""

import threading
import time
from collections.abc import Callable

_SHARE = 50  # An upload of a second is not repeated for this many seconds.


class BackgroundUploads:
    """A thread that uploads every now and then, if there is something new.

    Args:
        upload: Uploads all of it.
        seconds: Between two uploads; more when they take long, since all is uploaded every time.
    """

    def __init__(self, upload: Callable[[], None], *, seconds: float = 30.0) -> None:
        self._upload, self._seconds, self._pause = upload, seconds, seconds
        self._changed = self._over = False
        self._wake = threading.Condition()
        self._uploading = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """Says that there is something new."""
        self._changed = True

    def now(self) -> None:
        """Uploads what is new, and returns when it is there.

        Raises:
            Exception: What `upload` raises.
        """
        with self._uploading:
            if not self._changed:
                return
            self._changed = False
            began = time.monotonic()
            try:
                self._upload()
            except BaseException:
                self._changed = True
                raise
            self._pause = max(self._seconds, _SHARE * (time.monotonic() - began))

    def close(self) -> None:
        """Uploads what is new and ends the thread."""
        with self._wake:
            self._over = True
            self._wake.notify()
        self._thread.join()
        self.now()

    def _work(self) -> None:
        while True:
            with self._wake:
                if self._over or self._wake.wait_for(lambda: self._over, timeout=self._pause):
                    return
            try:
                self.now()
            except Exception:  # The next time, or the save that waits for it, says what is wrong.
                continue
