"""Workers as processes of their own: told to stop, killed, poisoned, forked, several at a time, inside a server."""

from __future__ import annotations

import signal
import socket
import time
import urllib.request
from typing import TYPE_CHECKING, cast

import pytest
import sqlalchemy
from support import headers_of, payload
from support.shop_processes import Shop, database, shop_on
from support.worker import PATIENCE, deliver, eventually, records_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from roovet_webhooks.inbox.sql import SQLInbox


pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with shop_on(tmp_path, f"sqlite:///{tmp_path / 'inbox.db'}") as made:
        yield made


@pytest.fixture
def shop_on_postgresql(tmp_path: Path) -> Iterator[Shop]:
    with database() as url, shop_on(tmp_path, url) as made:
        yield made


def post(url: str, event: str) -> int:
    now = int(time.time())
    raw = payload(event, ts=now)
    request = urllib.request.Request(url, raw, headers_of(raw, timestamp=now))  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310 - loopback
        return int(response.status)


def deliver_until_two_have_worked(shop: Shop) -> int:
    """Return how many deliveries that took; however long a process takes to start, there is work left for it."""
    delivered = 0

    def both() -> bool:
        nonlocal delivered
        deliver(shop.receiver, count=5)
        delivered += 5
        return len(shop.pids()) == 2

    eventually(both)
    return delivered


def test_sigterm_drains(shop: Shop) -> None:
    deliver(shop.receiver, "order.slow", id="a")
    deliver(shop.receiver, "order.slow", id="b")
    worker = shop.worker("--concurrency", "1")
    eventually(lambda: shop.did("begun") == ["a"])
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert worker.poll() is None
    shop.go()
    assert worker.wait(PATIENCE) == 0
    assert shop.states == ["done", "ready"]
    assert shop.did("ended") == ["a"]


def test_what_outlasts_the_grace_is_given_back(shop: Shop) -> None:
    deliver(shop.receiver, "order.slow", id="a")
    worker = shop.worker("--grace", "0.2")
    eventually(lambda: shop.did("begun") == ["a"])
    worker.send_signal(signal.SIGINT)
    assert worker.wait(PATIENCE) == 0
    (record,) = records_of(shop.receiver)
    assert (record.state, record.failures, record.crashes) == ("ready", 0, 0)


def test_a_second_signal_ends_it_at_once(shop: Shop) -> None:
    deliver(shop.receiver, "order.slow")
    worker = shop.worker("--grace", "60")
    eventually(lambda: len(shop.did("begun")) == 1)
    worker.send_signal(signal.SIGTERM)

    def ended() -> bool:
        # Two that come at once are one: send until it has taken a second one.
        worker.send_signal(signal.SIGTERM)
        return worker.poll() is not None

    eventually(ended)
    assert worker.returncode == -signal.SIGTERM


@pytest.mark.long
def test_a_killed_worker_loses_nothing(shop: Shop) -> None:
    deliver(shop.receiver, "order.slow", id="a")
    first = shop.worker()
    eventually(lambda: shop.did("begun") == ["a"])
    first.kill()
    first.wait(PATIENCE)
    shop.go()
    deliver(shop.receiver, count=20)
    shop.worker()
    eventually(lambda: shop.states == ["done"] * 21)
    assert shop.did("begun") == ["a", "a"]
    assert len(shop.did("quick")) == 20
    assert records_of(shop.receiver)[0].crashes == 1


@pytest.mark.long
def test_a_poison_ends_dead_and_takes_nobody_with_it(shop: Shop) -> None:
    deliver(shop.receiver, count=30)
    deliver(shop.receiver, "order.poison", id="poison")
    deliver(shop.receiver, count=30)
    states = ["done"] * 30 + ["dead"] + ["done"] * 30

    def revived() -> bool:
        if not shop.processes or shop.processes[-1].poll() is not None:
            shop.worker("--concurrency", "4")
        return shop.states == states

    eventually(revived)
    assert records_of(shop.receiver)[30].outcome == "poisoned"
    assert shop.did("poison") == ["poison"] * 2
    # In the crash of the first time others may have been beside it; in the second it was alone.
    assert len(shop.did("quick")) >= 60
    assert max(record.crashes for record in records_of(shop.receiver) if record.state == "done") <= 1


def test_two_workers_on_one_sqlite_file_share_the_work(shop: Shop) -> None:
    workers = [shop.worker("--concurrency", "2") for _ in range(2)]
    delivered = deliver_until_two_have_worked(shop)
    inbox = cast("SQLInbox", shop.receiver.inbox)
    eventually(lambda: inbox.stats()[0].workers == 2)
    eventually(lambda: shop.states == ["done"] * delivered)
    assert len(shop.did("quick")) == len(set(shop.did("quick"))) == delivered
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    assert [worker.wait(PATIENCE) for worker in workers] == [0, 0]


@pytest.mark.long
def test_kills_double_no_effect_on_postgresql(shop_on_postgresql: Shop) -> None:
    shop = shop_on_postgresql
    engine = sqlalchemy.create_engine(shop.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE effect (resource text)")
    deliver(shop.receiver, "order.booked", count=300)
    for pause in (0.9, 1.1, 1.3):
        worker = shop.worker("--concurrency", "4")
        time.sleep(pause)
        worker.kill()
        worker.wait(PATIENCE)
    shop.worker("--concurrency", "4")
    eventually(lambda: shop.states == ["done"] * 300)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT count(*), count(DISTINCT resource) FROM effect").one()
    engine.dispose()
    assert tuple(rows) == (300, 300)


@pytest.mark.long
def test_a_server_s_lifespan_works_off_what_it_accepts(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = shop.start("-m", "uvicorn", "shop:app", "--port", str(port), "--log-level", "warning")
    url = f"http://127.0.0.1:{port}/webhooks/roovet"

    def accepts() -> bool:
        try:
            return post(url, "order.created") == 200
        except OSError:
            return False

    eventually(accepts)
    assert post(url, "order.slow") == 200
    eventually(lambda: len(shop.did("begun")) == 1)
    # A slow handler is in nobody's way.
    assert [post(url, "order.created") for _ in range(5)] == [200] * 5
    eventually(lambda: len(shop.did("quick")) == 6)
    server.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    shop.go()
    server.wait(PATIENCE)
    assert shop.states == ["done"] * 7


FORKED = """
import os, time
import shop

shop.receiver.check()
worker = shop.Worker(shop.receiver, poll=0.05, grace=5)
worker.start()
while not shop.inbox.stats() or shop.inbox.stats()[0].counts["done"] < 1:
    time.sleep(0.02)
child = os.fork()
if not child:
    # The thread has stayed with the parent; the worker may be started once more.
    assert not worker._thread.is_alive()
    worker.start()
    while len((shop.HERE / "did").read_text().splitlines()) < 40:
        time.sleep(0.02)
    worker.close()
    os._exit(0)
while not (shop.HERE / "go").exists():
    time.sleep(0.02)
worker.close()
assert os.waitpid(child, 0) == (child, 0)
"""


@pytest.mark.long
def test_a_worker_may_be_started_after_a_fork(shop: Shop) -> None:
    deliver(shop.receiver)
    (shop.folder / "forked.py").write_text(FORKED)
    process = shop.start("forked.py")
    eventually(lambda: shop.states == ["done"])
    delivered = deliver_until_two_have_worked(shop)
    deliver(shop.receiver, count=40)
    eventually(lambda: shop.states == ["done"] * (1 + delivered + 40))
    shop.go()
    assert process.wait(PATIENCE) == 0, (shop.folder / "output").read_text()
