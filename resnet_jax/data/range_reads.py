"""Reads from object storage, many at a time: TensorStore's clients, which cost a fraction of Python's."""

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from resnet_jax.data.data_error import DataError
from resnet_jax.object_storage import check_scheme

IN_FLIGHT = 128
"""Requests of a process at once: enough for 1,400 images a second at 90 ms each."""


MOST_EXPECTED = 4096  # Reads that are begun, and not asked for yet.

Begun = Callable[[], bytes]
"""Waits for bytes that are on their way, and returns them; raises DataError if they cannot be read."""

_expected: OrderedDict[Hashable, Begun] = OrderedDict()
_guard = threading.Lock()


def expect(key: Hashable, begin: Callable[[], Begun]) -> None:
    """Begins a read, unless it is begun, so that `take` finds it."""
    with _guard:
        if key not in _expected:
            _expected[key] = begin()
        while len(_expected) > MOST_EXPECTED:  # Left by those who stopped early.
            _expected.popitem(last=False)


def take(key: Hashable, begin: Callable[[], Begun]) -> Begun:
    """Returns a read that was expected, or begins it."""
    with _guard:
        found = _expected.pop(key, None)
    return found or begin()


def start_reading(root: str, name: str, begin: int | None = None, end: int | None = None) -> Begun:
    """Begins to read an object and returns at once.

    Args:
        root: URL of a directory.
        name: Path of the object below it.
        begin: First byte that is read. Defaults to the object's.
        end: One beyond the last byte.
    """
    part = None if begin is None else slice(begin, end)
    future = _store(root).read(name, byte_range=part)

    def finish() -> bytes:
        try:
            found = future.result()
        except Exception as error:  # Of the client, in words of its own.
            reason = " ".join(str(error).split())[:300]
            raise DataError(f"{root}/{name} cannot be read: {reason}") from error
        if found.state != "value":
            raise DataError(f"{root}/{name} is not there")
        return bytes(found.value)

    return finish


@functools.lru_cache(maxsize=16)
def _store(root: str) -> Any:  # tensorstore.KvStore, whose types are not exported.
    import tensorstore as ts  # Here: what reads no bucket need not wait for it.

    check_scheme(root)
    scheme, _, rest = root.partition("://")
    bucket, _, path = rest.partition("/")
    spec: dict[str, object] = {"driver": {"gs": "gcs"}.get(scheme, scheme), "bucket": bucket}
    spec["path"] = f"{path.rstrip('/')}/" if path else ""
    requests = "gcs_request_concurrency" if scheme == "gs" else "s3_request_concurrency"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:
        spec["endpoint"] = endpoint
    return ts.KvStore.open(spec, context=ts.Context({requests: {"limit": IN_FLIGHT}})).result()
