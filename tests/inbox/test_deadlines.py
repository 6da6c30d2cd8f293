"""A server that never answers: whoever waits for it is told, and nothing waits for it without end."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from inbox.django_worlds import DjangoWorld
from inbox.worlds import Gate, PostgreSQLWorld, claimed, eventually, given, run_in_transaction
from roovet_webhooks import InboxUnavailable
from roovet_webhooks.django import database as django_database, transactions as django_transactions
from roovet_webhooks.inbox import deadlines, maintenance
from roovet_webhooks.inbox.deadlines import cut_after
from roovet_webhooks.inbox.limits import SERVER_SECONDS
from roovet_webhooks.inbox.protocol import Stored, Verdict
from roovet_webhooks.inbox.sql import committer, postgresql as store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inbox.worlds import World

NEW = Stored(Verdict.NEW)
SOON = 0.2
# Of this process: others may sleep on the same server.
_MARK = f"asleep in {os.getpid()}"
ASLEEP = f"SELECT pg_sleep(120) /* {_MARK} */"


@pytest.fixture(params=[PostgreSQLWorld, lambda folder: DjangoWorld("postgresql", folder)], ids=["sql", "django"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world on a server."""
    world = request.param(tmp_path)
    yield world
    # The server does not see that nobody waits any more, and keeps the locks.
    world.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # noqa: S608 - the mark above
        f"WHERE query LIKE '%{_MARK}%' AND pid <> pg_backend_pid() AND state = 'active'"
    )
    world.close()


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every bound be reached soon."""
    for module in (store, django_database):
        monkeypatch.setattr(module, "OWN_SECONDS", SOON)
        monkeypatch.setattr(module, "LOOK_SECONDS", SOON)
    for module in (store, django_transactions):
        monkeypatch.setattr(module, "GRACE", SOON - SERVER_SECONDS)
    monkeypatch.setattr(django_database.Database.begin, "__defaults__", (SOON,))
    monkeypatch.setattr(deadlines, "LOOK_EVERY", 0.05)


def sleep(world: World, inbox: Any) -> None:  # noqa: ANN401 - a DurableInbox
    """Wait, in a transaction of the inbox's own, for an answer that does not come."""
    if isinstance(world, DjangoWorld):
        inbox._database.run(lambda _now: world.execute(ASLEEP))
    else:
        given(inbox._run(lambda connection, _now: connection.execute(text(ASLEEP))))


def sleep_in_a_look(world: World, inbox: Any) -> None:  # noqa: ANN401 - a DurableInbox
    """Wait, in a look of an operator's, for an answer that does not come."""
    if isinstance(world, DjangoWorld):
        inbox._database.read(lambda: world.execute(ASLEEP))
    else:
        with inbox._store.read() as (connection, _):
            connection.execute(text(ASLEEP))


@pytest.mark.usefixtures("_soon")
class TestNoAnswer:
    @pytest.mark.parametrize("wait", [sleep, sleep_in_a_look], ids=["own", "look"])
    def test_it_is_waited_for_no_longer_than_a_bound(self, server: World, wait: Any) -> None:  # noqa: ANN401 - one of the above
        inbox = server.process()
        given(inbox.store(server.delivery(), claim=False))
        with pytest.raises(InboxUnavailable):
            wait(server, inbox)
        assert given(inbox.store(server.delivery(), claim=False)) == NEW

    def test_a_handlers_transaction(self, server: World) -> None:
        inbox = server.process()
        claim = claimed(inbox, server.delivery())

        def work(connection: Any) -> None:  # noqa: ANN401 - whatever the inbox hands to handlers
            server.book(connection, "never")
            if isinstance(server, DjangoWorld):
                server.execute(ASLEEP)
            else:
                connection.execute(text(ASLEEP))

        with pytest.raises(Exception, match=r"connection|cannot be used|closed"):
            run_in_transaction(inbox, claim, work)
        assert server.booked() == []
        other = claimed(inbox, server.delivery())
        run_in_transaction(inbox, other, lambda connection: server.book(connection, "once"))
        assert server.booked() == ["once"]

    def test_a_connection_that_answers_is_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Others of this process may be in use, of a test that has left one behind.
        monkeypatch.setattr(deadlines, "_WATCHDOG", deadlines._Watchdog())
        monkeypatch.setattr(deadlines, "LOOK_EVERY", 0.01)
        near, far = socket.socketpair()
        with near, far:
            with cut_after(near, 60), cut_after(near, 60):
                pass
            eventually(lambda: deadlines._WATCHDOG._thread is None)
            near.sendall(b"x")
            assert far.recv(1) == b"x"
            with cut_after(near, 0):
                assert far.recv(1) == b""
                far.close()
                deadlines._WATCHDOG._look()  # once more is no harm

    def test_one_without_a_socket_has_no_bound(self) -> None:
        closed = socket.socket()
        closed.close()
        for driver in (object(), closed):
            with cut_after(driver, 0):
                pass

    def test_a_watch_that_could_not_begin_begins_with_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deadlines, "LOOK_EVERY", 0.01)
        eventually(lambda: deadlines._WATCHDOG._thread is None)
        near, far = socket.socketpair()

        def refused(_thread: threading.Thread) -> None:
            message = "can't start new thread"
            raise RuntimeError(message)

        with near, far, cut_after(far, 60), pytest.MonkeyPatch.context() as patch:
            eventually(lambda: deadlines._WATCHDOG._thread is not None)
            watchdog = deadlines._Watchdog()
            patch.setattr(deadlines, "_WATCHDOG", watchdog)
            patch.setattr(threading.Thread, "start", refused)
            with cut_after(near, 0):
                assert watchdog._thread is None
                patch.undo()
                monkeypatch.setattr(deadlines, "_WATCHDOG", watchdog)
                with cut_after(far, 60):
                    assert far.recv(1) == b""


class TestStuck:
    """The thread itself does not come back, whatever is done about its connection."""

    def test_a_committer_is_replaced(self, postgresql: PostgreSQLWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        inbox = postgresql.process()
        given(inbox.store(postgresql.delivery(), claim=False))
        with Gate(inbox):
            first = inbox._committer._serving
            monkeypatch.setattr(committer, "STUCK", 0.0)
            waited = inbox.store(postgresql.delivery(), claim=False)
            monkeypatch.undo()
            assert given(waited) == NEW
            assert given(inbox.store(postgresql.delivery(), claim=False)) == NEW
        # It comes back, gives its answer, and ends.
        first.thread.join(30)
        assert not first.thread.is_alive()
        assert given(inbox.store(postgresql.delivery(), claim=False)) == NEW

    def test_closing_leaves_it_behind(self, postgresql: PostgreSQLWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(committer, "STUCK_AT_THE_END", 0.0)
        inbox = postgresql.process()
        with Gate(inbox):
            waiting = inbox.store(postgresql.delivery(), claim=False)
            inbox._committer.close()
            with pytest.raises(InboxUnavailable, match="was closed while its store did not answer"):
                given(waiting)
            with pytest.raises(InboxUnavailable, match="the inbox has been closed"):
                inbox.store(postgresql.delivery(), claim=False)

    def test_closing_waits_for_what_goes_on(self, postgresql: PostgreSQLWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(committer, "_LOOK", 0.01)
        inbox = postgresql.process()
        with ThreadPoolExecutor() as pool:
            with Gate(inbox):
                waiting = inbox.store(postgresql.delivery(), claim=False)
                closing = pool.submit(inbox.close)
                time.sleep(0.1)
                assert not closing.done()
            closing.result(30)
        assert given(waiting) == NEW

    def test_closing_waits_for_no_keeper(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(maintenance, "CLOSING", 0.01)
        entered, go_on = threading.Event(), threading.Event()

        class Stuck:
            def renew(self, _claims: object) -> list[int]:
                return []

            def reap_now(self) -> int:
                entered.set()
                go_on.wait(60)
                return 0

            def prune(self) -> None:
                """Nothing is old."""

        ours = maintenance.MaintenanceThread(Stuck(), 0.01)
        ours.start()
        assert entered.wait(30)
        ours.close()
        go_on.set()

    def test_tables_that_are_being_made_keep_nobody_waiting(
        self, postgresql: PostgreSQLWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "WAIT", 0.01)
        inbox = postgresql.process()
        with inbox._store._preparing, pytest.raises(InboxUnavailable, match="are being made or upgraded"):
            inbox.open()
        inbox.open()

    def test_who_waited_for_the_tables_finds_them_made(self, postgresql: PostgreSQLWorld) -> None:
        inbox = postgresql.process()
        with ThreadPoolExecutor() as pool:
            with inbox._store._preparing:
                looking = pool.submit(inbox.stats)
                time.sleep(0.05)
                inbox._store._prepared = True
            assert looking.result(30) == []
