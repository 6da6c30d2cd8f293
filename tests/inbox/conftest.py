"""A world for each test of the inbox, in each store that has what the test asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inbox.django_worlds import DJANGO_WORLDS
from inbox.pooler import PoolerWorld
from inbox.worlds import WORLDS, MemoryWorld, PostgreSQLWorld, SQLiteWorld, World
from roovet_webhooks.django import dialects
from roovet_webhooks.inbox.limits import SERVER_SECONDS
from roovet_webhooks.inbox.sql.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORLDS.update(DJANGO_WORLDS)
WORLDS["pgbouncer"] = PoolerWorld
DURABLE = [name for name in WORLDS if name != "memory"]


def _lived(world: World) -> Iterator[World]:
    yield world
    world.close()


@pytest.fixture(autouse=True)
def _time_for_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a transaction on SQLite last as long as one on a server, however busy the machine is."""
    monkeypatch.setattr(SQLiteStore, "limit", SERVER_SECONDS)
    monkeypatch.setattr(dialects, "SQLITE_SECONDS", SERVER_SECONDS)


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Any world."""
    yield from _lived(WORLDS[request.param](tmp_path))


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world that outlives its processes."""
    yield from _lived(WORLDS[request.param](tmp_path))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world in a database that `SQLInbox` knows."""
    yield from _lived(WORLDS[request.param](tmp_path))


@pytest.fixture(params=[SQLiteWorld, PostgreSQLWorld], ids=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world in such a database in which no inbox has been opened yet."""
    yield from _lived(request.param(tmp_path, prepared=False))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[World]:
    """A world of one process."""
    yield from _lived(MemoryWorld(tmp_path))


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[World]:
    """A world in a file."""
    yield from _lived(SQLiteWorld(tmp_path))


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[World]:
    """A world in PostgreSQL."""
    yield from _lived(PostgreSQLWorld(tmp_path))
