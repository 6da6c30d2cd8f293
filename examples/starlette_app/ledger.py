"""The shop's ledger: one line for each delivery that meant something."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from roovet_webhooks import RetryLater

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from roovet_webhooks import Delivery

_TABLE = "CREATE TABLE IF NOT EXISTS entry (delivery TEXT PRIMARY KEY, kind TEXT, resource TEXT, amount_cents INTEGER)"
# The receiver's memory ends with the process. The primary key does not: a delivery that comes back after a
# restart is booked once all the same.
_INSERT = "INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?)"
_SELECT = "SELECT delivery, kind, resource, amount_cents FROM entry ORDER BY rowid"


class Ledger:
    """A database that lives as long as the application, and never blocks its event loop."""

    @asynccontextmanager
    async def opened(self, path: str | Path) -> AsyncIterator[None]:
        """Keep the database open, and used by one thread at a time."""
        connection = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
        with closing(connection):
            connection.row_factory = sqlite3.Row
            connection.execute(_TABLE)
            self._connection = connection
            self._one_at_a_time = CapacityLimiter(1)
            yield

    async def record(self, delivery: Delivery, kind: str, amount_cents: int | None = None) -> None:
        """Write one line, once for each delivery."""
        try:
            await self._run(_INSERT, delivery.id, kind, delivery.event.id, amount_cents)
        except sqlite3.OperationalError as error:
            # Locked or out of reach: nobody's failure, so the sender is asked to come back.
            raise RetryLater(after=5, reason=f"the ledger is not available: {error}") from error

    async def entries(self) -> list[dict[str, object]]:
        """Return all lines, oldest first."""
        return [dict(row) for row in await self._run(_SELECT)]

    async def _run(self, statement: str, *values: object) -> list[sqlite3.Row]:
        def execute() -> list[sqlite3.Row]:
            return self._connection.execute(statement, values).fetchall()

        return await to_thread.run_sync(execute, limiter=self._one_at_a_time)


ledger = Ledger()
