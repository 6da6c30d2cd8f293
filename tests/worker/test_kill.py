"""A receiver and its workers are killed at any moment: nothing that was acknowledged is lost, no effect is doubled."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from support import SECRET
from support.killing import killed_at_random, wait_until
from support.shop_processes import database, killed

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# The effect has no unique column: only the inbox keeps it from happening twice.
SHOP = """
import random, time
from roovet_webhooks import RetryPolicy, WebhookReceiver
from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.inbox.sql import SQLInbox

inbox = SQLInbox({url!r}, settle=0, lease=1.0)
retry = RetryPolicy(initial=0.05, max_delay=0.1, max_attempts=10_000, max_crashes=10_000)
receiver = WebhookReceiver({secret!r}, inbox=inbox, retry=retry)

@receiver.on("*")
def book(event, delivery):
    time.sleep(random.random() / 50)
    with delivery.transaction() as connection:
        connection.exec_driver_sql("INSERT INTO effect (resource) VALUES ('" + event.id + "')")
        time.sleep(random.random() / 100)
    time.sleep(random.random() / 100)

@receiver.on("*", name="also")
async def also(event, delivery):
    await delivery.in_transaction(lambda connection: connection.exec_driver_sql(
        "INSERT INTO effect (resource) VALUES ('also " + event.id + "')"))

app = WebhookApp(receiver)
"""


@contextmanager
def url_on(kind: str, folder: Path) -> Generator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'roovet.db'}"
    else:
        with database() as url:
            yield url


class Shop:
    """The application, its processes, and its tables."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.engine = sqlalchemy.create_engine(url)
        (folder / "shop.py").write_text(SHOP.format(url=url, secret=SECRET))
        with self.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE effect (resource TEXT)")
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port: int = free.getsockname()[1]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "output").open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "-m", *arguments],
                cwd=self._folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def receiver(self) -> subprocess.Popen[bytes]:
        return self._start("uvicorn", "shop:app", "--port", str(self.port), "--log-level", "warning")

    def worker(self) -> subprocess.Popen[bytes]:
        return self._start("roovet_webhooks.cli", "worker", "shop:receiver", "--poll", "0.05", "--concurrency", "4")

    def ask(self, question: str) -> dict[str, int]:
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.exec_driver_sql(question)}

    def states(self) -> dict[str, int]:
        return self.ask("SELECT state, count(*) FROM roovet_delivery GROUP BY state")

    def close(self) -> None:
        for process in self._processes:
            killed(process)
        self.engine.dispose()


@pytest.mark.timeout(1200)  # of the long run; the ordinary one takes half a minute
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.long
def test_killed_at_random(kind: str, tmp_path: Path) -> None:
    with url_on(kind, tmp_path) as url:
        shop = Shop(tmp_path, url)
        try:
            acknowledged, about = killed_at_random([shop.receiver, shop.worker, shop.worker], shop.port)
            wait_until(lambda: not shop.states().keys() & {"ready", "claimed"})
            effects = shop.ask("SELECT resource, count(*) FROM effect GROUP BY resource")
            assert acknowledged - effects.keys() == set(), f"lost: {about}"
            assert {name for name, count in effects.items() if count != 1} == set(), f"doubled: {about}"
            assert shop.states() == {"done": len(effects) / 2}, about
            if kind == "sqlite":
                assert shop.ask("SELECT integrity_check, 1 FROM pragma_integrity_check") == {"ok": 1}, about
        finally:
            shop.close()
