"""Worlds whose inbox is a `DjangoInbox`: in SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import atexit
import threading
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from django.db import connections
from django.db.backends.signals import connection_created
from support.django_databases import KINDS, added, migrate, settings_of

from inbox.worlds import LEASE, World
from roovet_webhooks.django import DjangoInbox
from roovet_webhooks.django.dialects import KNOWS_MODES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from roovet_webhooks.inbox.protocol import DurableInbox

T = TypeVar("T")

_TABLES = ("ledger", *(f"roovet_webhooks_{name}" for name in ("delivery", "handled", "worker", "turn")))
_DELETE = [f"DELETE FROM {table}" for table in _TABLES]  # noqa: S608 - the names above
# With numbers that begin at 1 again.
_EMPTYING = {
    "sqlite": [*_DELETE, "DELETE FROM sqlite_sequence"],
    "postgresql": [*_DELETE, "SELECT setval('roovet_webhooks_delivery_id_seq', 1, false)"],
    "mysql": [*_DELETE, "ALTER TABLE roovet_webhooks_delivery AUTO_INCREMENT = 1"],
}
_at_exit = ExitStack()
atexit.register(_at_exit.close)


@cache
def _database(kind: str) -> str:
    """Make a database once for all worlds of a kind, and return its alias."""
    folder = Path(mkdtemp(prefix="roovet-django-"))
    _at_exit.callback(rmtree, folder)
    settings = _at_exit.enter_context(settings_of(kind, folder))
    if kind == "sqlite" and KNOWS_MODES:
        settings["OPTIONS"] = {"init_command": "PRAGMA synchronous=OFF"}  # no power is cut here
    alias = _at_exit.enter_context(added(f"world_{kind}", {**settings, "CONN_MAX_AGE": None}))
    migrate(alias)
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE TABLE ledger (entry VARCHAR(100))")
    return alias


class DjangoWorld(World):
    """A database of a project; other worlds of its kind have been in it before."""

    def __init__(self, kind: str, folder: Path) -> None:
        super().__init__(folder)
        self.alias = _database(kind)
        self._opened: list[BaseDatabaseWrapper] = []
        for statement in _EMPTYING[kind]:
            self.execute(statement)
        connection_created.connect(self._note)

    def _note(self, connection: BaseDatabaseWrapper, **_others: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            self._opened.append(connection)

    def make(self, **options: Any) -> DjangoInbox:  # noqa: ANN401 - its options
        options.pop("max_waiting", None)  # nothing waits in it
        inbox = DjangoInbox(self.alias, clock=lambda: self.wall, **{"lease": LEASE, **options})
        inbox._ticks = lambda: self.ticks
        return inbox

    def _done_in_thread(self, work: Callable[[], T]) -> T:
        try:
            return work()
        finally:
            connections[self.alias].close()  # nobody else can, once the thread has gone

    def book(self, connection: Any, entry: str) -> None:  # noqa: ANN401 - Django's connection
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO ledger (entry) VALUES (%s)", [entry])

    def booked(self) -> list[str]:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT entry FROM ledger")
            return sorted(row[0] for row in cursor.fetchall())

    @contextmanager
    def connecting(self, process: DurableInbox, to: Callable[[Any], None]) -> Generator[None]:
        del process
        made = type(connections[self.alias]).get_new_connection

        def connected(connection: BaseDatabaseWrapper, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - any driver's
            driver = made(connection, parameters)
            if connection.alias == self.alias:
                to(driver)
            return driver

        connections[self.alias].close()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(connections[self.alias]), "get_new_connection", connected)
            yield

    def execute(self, statement: str) -> None:
        """Change the tables behind the inbox's back."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute(statement)

    def close(self) -> None:
        super().close()
        connection_created.disconnect(self._note)
        for connection in self._opened:
            if connection.connection is not None:  # of a thread that has ended
                connection.connection.close()


DJANGO_WORLDS: dict[str, Callable[[Path], World]] = {f"django-{kind}": partial(DjangoWorld, kind) for kind in KINDS}
