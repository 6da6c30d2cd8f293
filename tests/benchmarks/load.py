"""The load: ``python load.py PORT COUNT`` posts COUNT deliveries, each once, over keep-alive connections.

Every request is built and signed before the clock starts, so that what is left to do while it runs is little:
write the next one when an answer has come. Writes one JSON object to standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import TYPE_CHECKING, cast

import uvloop
from deliveries import http_request, roovet_body, roovet_headers, stripe_body, stripe_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH = b"content-length: "
_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One keep-alive connection: one request at a time, until there are none left."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._transport: asyncio.Transport
        self._pending = b""
        self.good = 0
        self.bad: list[str] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def start(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
        end = data.find(_END)
        place = data.find(_LENGTH, 0, end) if end >= 0 else -1
        if place < 0:
            self._pending = data
            return
        place += len(_LENGTH)
        if len(data) < end + len(_END) + int(data[place : data.index(b"\r", place)]):
            self._pending = data
            return
        self._pending = b""
        if data.startswith(b"HTTP/1.1 200 "):
            self.good += 1
        else:
            self.bad.append(data[:300].decode("latin-1"))
        self.start()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.bad.append(repr(exc))
        if not self.done.done():
            self.done.set_result(None)


async def post(port: int, requests: list[bytes], connections: int, *, may_sleep: bool) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    left = iter(requests)
    opened = [
        (await loop.create_connection(lambda: Connection(left), "127.0.0.1", port))[1] for _ in range(connections)
    ]

    def stay_awake() -> None:
        # A loop that waits has to be woken for every answer, at the expense of the server that writes it: on
        # a virtual machine that can cost more than a delivery, and it falls on some servers and not on others.
        loop.call_soon(stay_awake)

    if not may_sleep:
        stay_awake()
    began = time.perf_counter()
    for connection in opened:
        connection.start()
    async with asyncio.timeout(120):
        await asyncio.gather(*(connection.done for connection in opened))
    return {
        "seconds": time.perf_counter() - began,
        "good": sum(connection.good for connection in opened),
        "bad": [fault for connection in opened for fault in connection.bad][:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--size", type=int, default=300, help="bytes of a body")
    parser.add_argument("--stripe", action="store_true", help="events and signatures as Stripe sends them")
    parser.add_argument("--may-sleep", action="store_true", help="wait for answers instead of asking all the time")
    options = parser.parse_args()
    make_body, headers_of = (stripe_body, stripe_headers) if options.stripe else (roovet_body, roovet_headers)
    bodies = [make_body(options.size, f"{os.getpid()}_") for _ in range(options.count)]
    requests = [http_request(body, headers_of(body)) for body in bodies]
    result = uvloop.run(post(options.port, requests, options.connections, may_sleep=options.may_sleep))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
