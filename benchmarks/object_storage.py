"""Images per second from a bucket, against the same prepared set on a local disk.

    pip install -e '.[test]'
    python benchmarks/object_storage.py
    python benchmarks/object_storage.py --delay 0.1 --json

The photographs of benchmarks/input.py, prepared as ArrayRecord, lie on this disk and in fake-gcs-server,
which runs on another core, behind a relay that holds back every request for 50 ms. The pipeline is that of
the package, on one core: from the disk, from the server without a cache, and from the server with a cache
that an epoch has filled. Their turns alternate, and the figures are medians. On a machine of one core the
server takes the client's, and the figures mean little.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from input import Contender, write_photographs

from resnet_jax.data.prepare import prepare
from resnet_jax.data.record_cache import DIRECTORY

sys.path.insert(0, str(Path(__file__).parents[1]))
from resnet_jax.object_storage import upload_directory
from tests.object_storage.server import BUCKET, serving
from tests.training.processes import free_port


class _Held(asyncio.Protocol):
    """What a client sends goes to the server after a while; what the server answers comes back at once."""

    def __init__(self, server: int, delay: float) -> None:
        self._server, self._delay, self._back = server, delay, asyncio.Queue[bytes | None]()

    def connection_made(self, transport: Any) -> None:
        self._client = transport
        self._task = asyncio.get_running_loop().create_task(self._connect())
        self._waiting: list[bytes] = []
        self._to: Any = None

    async def _connect(self) -> None:
        client = self._client

        class Answers(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                client.write(data)

            def connection_lost(self, error: Exception | None) -> None:
                del error
                client.close()

        loop = asyncio.get_running_loop()
        self._to, _ = await loop.create_connection(Answers, "127.0.0.1", self._server)
        for data in self._waiting:
            self._to.write(data)

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay, self._pass_on, data)

    def _pass_on(self, data: bytes) -> None:
        if self._to is None:
            self._waiting.append(data)
        else:
            self._to.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if self._to is not None:
            self._to.close()


def relay(port: int, server: int, delay: float, cores: list[int]) -> None:
    """Serves until it is killed, on these cores."""
    os.sched_setaffinity(0, cores)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        await (await loop.create_server(lambda: _Held(server, delay), "127.0.0.1", port)).serve_forever()

    asyncio.run(run())


def measure(turns: int, delay: float) -> dict[str, float]:
    """Returns the median images per second of each."""
    cores = sorted(os.sched_getaffinity(0))
    client, others = cores[:1], cores[1:2] or cores[:1]
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_photographs(root / "folder")
        prepare(str(root / "folder"), str(root / "set"))
        os.sched_setaffinity(0, others)  # Of the server too, which inherits them.
        server = stack.enter_context(serving(root / "server"))
        os.sched_setaffinity(0, cores)
        upload_directory(root / "set", f"{BUCKET}/set")
        port, behind = free_port(), int(server.address.rpartition(":")[2])
        held = multiprocessing.get_context("spawn").Process(
            target=relay, args=(port, behind, delay, others), daemon=True
        )
        held.start()
        stack.callback(held.kill)
        os.environ["TENSORSTORE_GCS_HTTP_URL"] = f"http://127.0.0.1:{port}"
        os.environ.pop(DIRECTORY, None)
        contenders = {
            "local": Contender("ours", root / "set", client),
            "cold": Contender("ours", f"{BUCKET}/set", client),
        }
        os.environ[DIRECTORY] = str(root / "cache")
        contenders["warm"] = Contender("ours", f"{BUCKET}/set", client)
        for _ in range(turns + 1):  # The first warms up, and fills the cache with an epoch and more.
            for contender in contenders.values():
                contender.take_turn()
        for contender in contenders.values():
            contender.close()
    return {
        name: statistics.median(rate for rate, _ in contender.rates[1:])
        for name, contender in contenders.items()
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--turns", type=int, default=9, help="of each (default: 9)")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds of each request (default: 0.05)")
    arguments = parser.parse_args()
    rates = measure(arguments.turns, arguments.delay)
    found = {f"images_per_second_{name}": round(rate, 1) for name, rate in rates.items()}
    ratios = {f"{name}_ratio_to_local": round(rates[name] / rates["local"], 3) for name in ("cold", "warm")}
    told = {**ratios, **found, "delay": arguments.delay, "turns": arguments.turns}
    print(
        json.dumps(told) if arguments.json else "\n".join(f"{name}: {value}" for name, value in told.items())
    )


if __name__ == "__main__":
    main()
