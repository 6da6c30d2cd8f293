"""The SQLite connection that a handler gets, by itself."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from roovet_webhooks.inbox.lent import HandlerConnection
from roovet_webhooks.inbox.sql.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def connection() -> Iterator[HandlerConnection]:
    with closing(sqlite3.connect(":memory:", factory=HandlerConnection, isolation_level=None)) as made:
        yield made


def test_a_forked_child_cannot_use_it(connection: HandlerConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.gate, "_pid", -1)
    with pytest.raises(sqlite3.ProgrammingError, match="belongs to the process that was forked"):
        connection.execute("SELECT 1")
    monkeypatch.undo()


def test_it_is_dead_once_a_statement_has_ended_its_transaction(connection: HandlerConnection) -> None:
    connection.execute("CREATE TABLE line (entry TEXT UNIQUE)")
    connection.execute("BEGIN")
    connection.lend()
    connection.execute("INSERT INTO line VALUES ('a')")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT OR ROLLBACK INTO line VALUES ('a')")
    with pytest.raises(sqlite3.ProgrammingError, match="is over before its end"):
        connection.execute("SELECT 1")


def test_one_that_is_over_is_not_lent(connection: HandlerConnection) -> None:
    connection.kill("too late")
    connection.lend()
    assert not connection.gate.lent


def test_a_statement_that_ends_after_the_block_changes_nothing() -> None:
    guard = Guard(cast("Any", SimpleNamespace(guard=None, is_tainted=False)), cast("Any", None))
    guard._running = 1
    guard.take_back()
    thread = threading.Thread(target=guard._after)
    thread.start()
    thread.join()
    assert guard._running == 1
    assert guard._connection.is_tainted
