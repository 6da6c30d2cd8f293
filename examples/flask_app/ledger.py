"""The shop's ledger: one line for each delivery that meant something."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from flask import current_app

from roovet_webhooks import RetryLater

if TYPE_CHECKING:
    from roovet_webhooks import Delivery

_TABLE = "CREATE TABLE IF NOT EXISTS entry (delivery TEXT PRIMARY KEY, kind TEXT, resource TEXT, amount_cents INTEGER)"
# The receiver's memory ends with the process. The primary key does not: a delivery that comes back after a
# restart is booked once all the same.
_INSERT = "INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?)"
_SELECT = "SELECT delivery, kind, resource, amount_cents FROM entry ORDER BY rowid"


def create(path: str) -> None:
    """Create the ledger where there is none."""
    with closing(_connect(path)) as connection, connection:
        connection.execute(_TABLE)


def record(delivery: Delivery, kind: str, amount_cents: int | None = None) -> None:
    """Write one line, once for each delivery."""
    try:
        with closing(_connect(current_app.config["LEDGER"])) as connection, connection:
            connection.execute(_INSERT, (delivery.id, kind, delivery.event.id, amount_cents))
    except sqlite3.OperationalError as error:
        # Locked or out of reach: nobody's failure, so the sender is asked to come back.
        raise RetryLater(after=5, reason=f"the ledger is not available: {error}") from error


def show() -> list[dict[str, object]]:
    """Return all lines, oldest first."""
    with closing(_connect(current_app.config["LEDGER"])) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(_SELECT)]


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0.5)
