"""gunicorn's gevent workers: greenlets in the place of threads, patched before the application is loaded or after."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx
import pytest
import sqlalchemy
from support import SECRET
from support.services import url_of

from roovet_webhooks import Signer

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# Each receiver has a handler that is a function and one that is a coroutine, and both take their time.
APP = """
import asyncio, os, time
from flask import Flask
from sqlalchemy import text
from roovet_webhooks import Delivery, Event, WebhookReceiver
from roovet_webhooks.flask import webhook_blueprint
from roovet_webhooks.inbox.sql import SQLInbox

app = Flask("shop")

def mount(name, inbox, acknowledge):
    receiver = WebhookReceiver({secret!r}, endpoint=name, inbox=inbox, acknowledge=acknowledge)

    @receiver.on("order.created")
    def sync(event: Event, delivery: Delivery) -> None:
        time.sleep(0.05)
        if acknowledge == "handled":
            with delivery.transaction() as connection:
                connection.execute(text("SELECT 1"))
                time.sleep(0.01)

    @receiver.on("order.updated")
    async def coroutine(event: Event, delivery: Delivery) -> None:
        await asyncio.sleep(0.05)
        if acknowledge == "handled":
            await delivery.in_transaction(lambda connection: connection.execute(text("SELECT 1")))

    app.register_blueprint(webhook_blueprint(receiver, path="/" + name))

mount("memory", None, None)
mount("stored", SQLInbox(os.environ["STORED"]), "stored")
mount("handled", SQLInbox(os.environ["HANDLED"]), "handled")
"""


@contextmanager
def served(folder: Path, *words: str, **environment: str) -> Generator[str]:
    """Serve the application with gunicorn's gevent workers, and yield its address."""
    (folder / "shop.py").write_text(APP.format(secret=SECRET))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.set_inheritable(True)
        program = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", f"fd://{listener.fileno()}", *words]
        process = subprocess.Popen(  # noqa: S603 - our own words
            [*program, "--no-control-socket", "--log-level", "error", "shop:app"],
            cwd=folder,
            env={**os.environ, **environment},
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(address: str) -> dict[str, set[int | str]]:
    """Post deliveries beside one another, and return what each receiver answered."""
    signer, ts = Signer(SECRET), int(time.time()) - 5
    paths = [path for _ in range(10) for path in ("memory", "stored", "handled")]

    def post(number: int) -> tuple[str, int | str]:
        name = "order.created" if number // 3 % 2 else "order.updated"
        raw = b'{"event":"%s","id":"ord_%d","ts":%d}' % (name.encode(), number, ts)
        path = paths[number]
        try:
            return path, client.post(f"/{path}", content=raw, headers=signer.headers(raw)).status_code
        except httpx.HTTPError as error:
            return path, type(error).__name__

    found: dict[str, set[int | str]] = {}
    with httpx.Client(base_url=address, timeout=60) as client, ThreadPoolExecutor(12) as pool:
        for path, answer in pool.map(post, range(len(paths))):
            found.setdefault(path, set()).add(answer)
    return found


EXPECTED = {"memory": {200}, "stored": {200}, "handled": {200}}


@pytest.mark.long
@pytest.mark.parametrize("words", [(), ("--preload",)], ids=["loaded after", "loaded before"])
def test_nothing_waits_for_ever(tmp_path: Path, words: tuple[str, ...]) -> None:
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("STORED", "HANDLED")}
    with served(tmp_path, *words, **urls) as address:
        assert answers(address) == EXPECTED


@pytest.mark.long
def test_nor_on_postgresql(tmp_path: Path) -> None:
    schema = f"roovet_gevent_{os.getpid()}"
    engine = sqlalchemy.create_engine(url_of("postgresql"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        try:
            url = engine.url.update_query_dict({"options": f"-csearch_path={schema}"})
            where = url.render_as_string(hide_password=False)
            with served(tmp_path, "--preload", STORED=where, HANDLED=where) as address:
                assert answers(address) == EXPECTED
        finally:
            connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    engine.dispose()
