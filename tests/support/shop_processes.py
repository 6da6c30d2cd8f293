"""An application and the processes that run it: what tests of workers and engines start, kill and look at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import TYPE_CHECKING, cast

import sqlalchemy

from roovet_webhooks import RetryPolicy, WebhookReceiver
from roovet_webhooks.inbox.sql import SQLInbox
from support import SECRET
from support.services import url_of
from support.worker import PATIENCE, states_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# The application of these tests: what its handlers did stands in a file, and what is to block waits for one.
SHOP = """
import asyncio, os, signal, sys, time
from pathlib import Path
from roovet_webhooks import RetryPolicy, WebhookReceiver
from roovet_webhooks.inbox.sql import SQLInbox

HERE = Path(__file__).parent
inbox = SQLInbox({url!r}, settle=0, lease={lease}, timeout=5)
{engine}
policy = RetryPolicy(initial=0.05, max_delay=0.05, max_crashes=2)
receiver = WebhookReceiver({secret!r}, inbox=inbox, retry=policy, engine=engine)

def did(word, event):
    with (HERE / "did").open("a") as file:
        file.write(f"{{word}} {{event.id}} {{os.getpid()}}\\n")

@receiver.on("order.created")
def quick(event):
    did("quick", event)

@receiver.on("order.slow")
def slow(event):
    did("begun", event)
    while not (HERE / "go").exists():
        time.sleep(0.01)
    did("ended", event)

@receiver.on("order.fails_once")
def fail_once(event, delivery):
    did("tried", event)
    if delivery.attempt == 1:
        raise ValueError

@receiver.on("order.poison")
def poison(event):
    did("poison", event)
    os.kill(os.getpid(), signal.SIGKILL)

@receiver.on("order.booked")
def book(event, delivery):
    time.sleep(0.01)
    with delivery.transaction() as connection:
        connection.exec_driver_sql("INSERT INTO effect (resource) VALUES ('" + event.id + "')")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        async with working(receiver, poll=0.05):
            await send({{"type": "lifespan.startup.complete"}})
            await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
    else:
        await WebhookApp(receiver)(scope, receive, send)

from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.worker import Worker, working
"""


class Shop:
    """The application, and the processes that run it."""

    def __init__(self, folder: Path, url: str, lease: float, engine: str) -> None:
        self.folder = folder
        self.url = url
        (folder / "shop.py").write_text(SHOP.format(url=url, lease=lease, secret=SECRET, engine=engine))
        inbox = SQLInbox(url, settle=0, lease=lease)
        self.receiver = WebhookReceiver(SECRET, inbox=inbox, retry=RetryPolicy())
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, *arguments],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        line = ["-m", "roovet_webhooks.cli", "worker", "shop:receiver", "--poll", "0.05", "--log-level", "warning"]
        return self.start(*line, *options)

    def did(self, word: str) -> list[str]:
        """Return the resources of which a handler has noted a word."""
        return [resource for noted, resource, _ in self._notes() if noted == word]

    def pids(self) -> set[str]:
        """Return the processes in which a handler has noted anything."""
        return {pid for _, _, pid in self._notes()}

    def _notes(self) -> list[list[str]]:
        try:
            lines = (self.folder / "did").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line.split() for line in lines]

    def go(self) -> None:
        """Let slow handlers end."""
        (self.folder / "go").touch()

    @property
    def states(self) -> list[str]:
        return states_of(self.receiver)


def killed(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)


@contextmanager
def shop_on(folder: Path, url: str, lease: float = 1.0, *, engine: str = "engine = None") -> Generator[Shop]:
    shop = Shop(folder, url, lease, engine)
    try:
        yield shop
    finally:
        for process in shop.processes:
            killed(process)
        cast("SQLInbox", shop.receiver.inbox).close()


@contextmanager
def database() -> Generator[str]:
    """Make a database of its own in PostgreSQL, and return its URL."""
    url = sqlalchemy.make_url(url_of("postgresql"))
    name = f"roovet_{token_hex(6)}"
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()
