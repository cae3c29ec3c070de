"""A proxy before a server of object storage that delays, refuses, cuts and loses some of what passes.

    python -m tests.object_storage.proxy PORT SERVER --share 0.05 --delay 0.05 --seed 0 --log requests.txt

What is done to a request is drawn from the seed and the number of the request:

    throttled    429, before the server sees it
    unavailable  503, before the server sees it
    unheard      the connection is closed, before the server sees it
    unanswered   the server does what was asked, and the connection is closed without a reply
    cut          the reply ends in its middle
"""

import argparse
import asyncio
import logging
import random
from pathlib import Path

import aiohttp
from aiohttp import web

FAULTS = ("throttled", "unavailable", "unheard", "unanswered", "cut")
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "content-length"}


class Proxy:
    """Passes requests on to a server.

    Args:
        server: http://HOST:PORT.
        share: Of the requests that something is done to.
        delay: Seconds before each is passed on.
        seed: Of what is drawn.
        log: File that gets a line of each: what was done to it, its method, its path and the reply's bytes.
    """

    def __init__(self, server: str, *, share: float, delay: float, seed: int, log: Path | None) -> None:
        self._server, self._share, self._delay = server, share, delay
        self._dice = random.Random(seed)
        self._log = log.open("a", buffering=1) if log else None
        self._client: aiohttp.ClientSession | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Passes on a request, or does not."""
        fault = self._dice.choice(FAULTS) if self._dice.random() < self._share else "passed"
        body = await request.read()
        await asyncio.sleep(self._delay)
        if fault in ("throttled", "unavailable"):
            self._note(fault, request, 0)
            return web.Response(status=429 if fault == "throttled" else 503, text="try again")
        if fault == "unheard":
            self._note(fault, request, 0)
            return self._hang_up(request)
        if self._client is None:
            none = aiohttp.TCPConnector(limit=0)
            self._client = aiohttp.ClientSession(connector=none, auto_decompress=False)
        url = self._server + request.raw_path
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with self._client.request(
            request.method,
            aiohttp.client.URL(url, encoded=True),
            data=body,
            headers=headers,
            allow_redirects=False,
        ) as answer:
            reply = await answer.read()
        self._note(fault, request, len(reply))
        if fault == "unanswered":
            return self._hang_up(request)
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
        if fault == "cut" and len(reply) > 1:
            response = web.StreamResponse(status=answer.status, headers=headers)
            response.content_length = len(reply)
            await response.prepare(request)
            await response.write(reply[: len(reply) // 2])
            return self._hang_up(request, response)
        return web.Response(status=answer.status, headers=headers, body=reply)

    def _hang_up(
        self, request: web.Request, response: web.StreamResponse | None = None
    ) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return response or web.Response()

    def _note(self, fault: str, request: web.Request, size: int) -> None:
        if self._log:
            self._log.write(f"{fault} {request.method} {request.raw_path} {size}\n")


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.object_storage.proxy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("port", type=int)
    parser.add_argument("server", help="http://HOST:PORT")
    parser.add_argument("--share", type=float, default=0.0, help="of the requests that something is done to")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each is passed on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="file that gets a line of each request")
    given = parser.parse_args()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # It is meant to hang up.
    proxy = Proxy(given.server, share=given.share, delay=given.delay, seed=given.seed, log=given.log)
    application = web.Application(client_max_size=1 << 32)
    application.router.add_route("*", "/{path:.*}", proxy.handle)
    web.run_app(application, host="127.0.0.1", port=given.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
