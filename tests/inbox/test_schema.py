"""The tables know their version, and nobody writes to those of a later one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from sqlalchemy import text

from inbox.worlds import claimed, given, take
from roovet_webhooks import ConfigurationError, InboxUnavailable, MissingExtraError
from roovet_webhooks.inbox.changes import INSERTED, recorded, stored
from roovet_webhooks.inbox.protocol import Served
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.inbox.sql.schema import VERSION, Migration, delivery as table, prepare, versions

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from inbox.worlds import SQLWorld
    from roovet_webhooks import Delivery


def test_a_later_schema_is_refused(database: SQLWorld) -> None:
    given(database.process().store(database.delivery(), claim=False))
    database.execute("UPDATE roovet_meta SET value = '99'")
    fault = (
        f"schema version 99, which needs a roovet-webhooks that knows version 99; this one knows {VERSION}: "
        "upgrade the package"
    )
    with pytest.raises(ConfigurationError, match=fault):
        database.process().open()


def test_a_schema_that_says_nothing_is_refused(database: SQLWorld) -> None:
    database.process().open()
    database.execute("DELETE FROM roovet_meta")
    with pytest.raises(ConfigurationError, match="does not say which version the inbox has"):
        database.process().open()


def test_a_migration_is_applied_once(database: SQLWorld) -> None:
    database.process().open()
    applied: list[str] = []

    def widen(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE roovet_delivery ADD COLUMN note TEXT"))
        applied.append("widen")

    later = VERSION + 1
    steps = [Migration(VERSION, 1, lambda _connection: applied.append("never")), Migration(later, 1, widen)]
    for _ in range(2):
        with database.engine().begin() as connection:
            prepare(connection, migrations=steps, version=later)
            assert versions(connection) == (later, 1)
    assert applied == ["widen"]
    # Expanded, not contracted: code of the version before still runs.
    inbox = database.process()
    claimed(inbox, database.delivery())


# The tables as version 1 made them, in what both databases understand.
_VERSION_1 = """
CREATE TABLE roovet_delivery (
    id {number}, endpoint TEXT NOT NULL, tenant TEXT NOT NULL, key_ts BIGINT NOT NULL, key {binary} NOT NULL,
    ts BIGINT NOT NULL, event TEXT NOT NULL, resource TEXT NOT NULL, body {binary}, codec TEXT NOT NULL,
    secret_name TEXT NOT NULL, signed_at BIGINT NOT NULL, received_at BIGINT NOT NULL, state TEXT NOT NULL,
    outcome TEXT, available_at BIGINT NOT NULL, fence BIGINT NOT NULL, failures INTEGER NOT NULL,
    crashes INTEGER NOT NULL, round INTEGER NOT NULL, owner TEXT, lease_until BIGINT, handed_at BIGINT,
    finished_at BIGINT, last_error TEXT,
    CONSTRAINT roovet_delivery_identity UNIQUE (endpoint, tenant, key_ts, key)
);
CREATE INDEX roovet_delivery_ready ON roovet_delivery (endpoint, available_at, id) WHERE state = 'ready';
CREATE INDEX roovet_delivery_ended ON roovet_delivery (finished_at) WHERE state = 'done' OR state = 'dead';
CREATE INDEX roovet_delivery_claimed ON roovet_delivery (endpoint, tenant, resource) WHERE state = 'claimed';
CREATE INDEX roovet_delivery_body ON roovet_delivery (finished_at) WHERE state = 'done' AND body IS NOT NULL;
CREATE INDEX roovet_delivery_suspect ON roovet_delivery (endpoint, available_at) WHERE state = 'ready' AND crashes > 0;
CREATE INDEX roovet_delivery_resource ON roovet_delivery (endpoint, tenant, resource, ts, id)
    WHERE state = 'ready' OR state = 'claimed' OR state = 'dead';
CREATE TABLE roovet_handled (
    delivery_id BIGINT NOT NULL, round INTEGER NOT NULL, handler TEXT NOT NULL, fence BIGINT NOT NULL,
    PRIMARY KEY (delivery_id, round, handler)
);
CREATE TABLE roovet_meta (name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name));
CREATE TABLE roovet_worker (
    owner TEXT NOT NULL, endpoint TEXT NOT NULL, seen_at BIGINT NOT NULL, PRIMARY KEY (owner, endpoint)
);
INSERT INTO roovet_meta (name, value) VALUES ('version', '1'), ('min_compatible', '1')
"""
_TYPES = {
    "sqlite": {"number": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "binary": "BLOB"},
    "postgresql": {"number": "BIGSERIAL PRIMARY KEY", "binary": "BYTEA"},
}
_COLUMNS_1 = [name for name in INSERTED if name != "handlers"]


def _store_as_version_1(world: SQLWorld, delivery: Delivery) -> None:
    """Insert a delivery as code of version 1 does."""
    values = recorded(delivery, delivery.raw, "")
    del values["handlers"]
    now = round(1000 * world.wall)
    values |= stored(delivery.event.ts, received_at=now, now=now, settle=0)
    names = ", ".join(_COLUMNS_1)
    parameters = ", ".join(f":{name}" for name in _COLUMNS_1)
    world.execute(f"INSERT INTO roovet_delivery ({names}) VALUES ({parameters})", **values)  # noqa: S608 - names of columns


def test_an_inbox_of_version_1_is_upgraded_and_still_serves_code_of_version_1(empty: SQLWorld) -> None:
    kind = empty.engine().dialect.name
    for statement in _VERSION_1.format(**_TYPES[kind]).split(";"):
        empty.execute(statement)
    before, beside = empty.delivery("before"), empty.delivery("beside")
    _store_as_version_1(empty, before)
    empty.execute("INSERT INTO roovet_worker (owner, endpoint, seen_at) VALUES ('old', 'shop', :now)", now=10**15)

    inbox = empty.process()
    inbox.open()
    with empty.engine().connect() as connection:
        assert versions(connection) == (VERSION, 1)
        made = {index["name"] for index in sqlalchemy.inspect(connection).get_indexes(table.name)}
    assert {index.name for index in table.indexes} <= made
    _store_as_version_1(empty, beside)
    given(inbox.store(empty.delivery("after"), claim=False, handlers=["book"]))
    found = {one.delivery.event.id: one.claim.handlers for one in take(inbox)}
    assert found == {"before": None, "beside": None, "after": ("book",)}
    given(inbox.heartbeat("new", [Served("shop", ("book",), ("*",))]))
    told = {worker.owner: (worker.handlers, worker.patterns) for worker in given(inbox.workers())}
    assert told == {"old": (None, None), "new": (("book",), ("*",))}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InboxUnavailable, match=r"there is no folder .*none"):
        SQLInbox(f"sqlite:///{tmp_path / 'none' / 'x.db'}").open()


@pytest.mark.parametrize("where", ["mysql://localhost/x", sqlalchemy.create_engine("sqlite://")])
def test_where_no_inbox_lives(where: str | sqlalchemy.Engine) -> None:
    with pytest.raises(ConfigurationError, match=r"needs a file|lives in SQLite or PostgreSQL|must be a database URL"):
        SQLInbox(where)


def test_without_sqlalchemy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("roovet_webhooks.inbox.sql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'roovet-webhooks\[inbox\]'"):
        __import__("roovet_webhooks.inbox.sql")
