"""Whether slow handlers slow accepts: ``python tests/benchmarks/slow.py``.

In each a uvicorn, a durable inbox in SQLite, and a worker in its lifespan: its handlers take 10 s, or nothing at all.
Two servers take turns at deliveries, over one connection each, while all places of the slow worker are taken. What is
told is how long each accept took.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from deliveries import PATH, SECRET, roovet_body, roovet_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = """
import time
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.routing import Route
from roovet_webhooks import WebhookReceiver
from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.worker import working

receiver = WebhookReceiver({secret!r}, inbox={url!r})

@receiver.on("*")
def handle(event):
    time.sleep({seconds})

@asynccontextmanager
async def lifespan(app):
    async with working(receiver, concurrency=8, grace=0):
        yield

app = Starlette(routes=[Route({path!r}, WebhookApp(receiver), methods=["POST"])], lifespan=lifespan)
"""


@contextmanager
def server(folder: Path, port: int, seconds: float) -> Iterator[http.client.HTTPConnection]:
    """Run a server whose handlers take so long, and yield a connection to it."""
    folder.mkdir()
    (folder / "shop.py").write_text(
        APP.format(secret=SECRET, url=f"sqlite:///{folder}/inbox.db", seconds=seconds, path=PATH)
    )
    command = [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--log-level", "warning"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": "."}, stdout=log, stderr=log)  # noqa: S603 - this interpreter
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        for _ in range(100):
            with suppress(OSError):
                connection.connect()
                break
            time.sleep(0.1)
        yield connection
    finally:
        connection.close()
        process.kill()
        process.wait(30)


def accept(connection: http.client.HTTPConnection) -> float:
    """Send a delivery and return the milliseconds until it was accepted."""
    body = roovet_body(300)
    headers = roovet_headers(body)
    began = time.perf_counter()
    connection.request("POST", PATH, body, headers)
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        sys.exit(f"a delivery was answered {response.status}")
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="deliveries to each")
    parser.add_argument("--port", type=int, default=18480)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        with server(folder / "slow", options.port, 10) as slow, server(folder / "quick", options.port + 1, 0) as quick:
            for connection in (slow, quick):
                for _ in range(20):
                    accept(connection)
            time.sleep(3)  # eight of them are being handled now, and the others wait
            took = [(accept(slow), accept(quick)) for _ in range(options.count)]
    for name, times in zip(("slow", "quick"), zip(*took, strict=True), strict=True):
        median, most = statistics.median(times), max(times)
        sys.stdout.write(f"handlers that are {name}: an accept took {median:.1f} ms, {most:.1f} at most\n")


if __name__ == "__main__":
    main()
