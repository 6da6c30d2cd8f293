"""The tables know their version, and nobody writes to those of a later one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from sqlalchemy import text

from inbox.worlds import claimed, given
from roovet_webhooks import ConfigurationError, InboxUnavailable, MissingExtraError
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.inbox.sql.schema import Migration, prepare, versions

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from inbox.worlds import SQLWorld


def test_a_later_schema_is_refused(database: SQLWorld) -> None:
    given(database.process().store(database.delivery(), claim=False))
    database.execute("UPDATE roovet_meta SET value = '3'")
    fault = (
        "schema version 3, which needs a roovet-webhooks that knows version 3; this one knows 1: upgrade the package"
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

    steps = [Migration(1, 1, lambda _connection: applied.append("never")), Migration(2, 1, widen)]
    for _ in range(2):
        with database.engine().begin() as connection:
            prepare(connection, migrations=steps, version=2)
            assert versions(connection) == (2, 1)
    assert applied == ["widen"]
    # Expanded, not contracted: code of the version before still runs.
    inbox = database.process()
    claimed(inbox, database.delivery())


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
