"""What a SQL store counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, Integer, func, literal_column, select

from roovet_webhooks.inbox.backlog import HEARTBEAT_IS_OLD
from roovet_webhooks.inbox.rows import worker_of
from roovet_webhooks.inbox.sql.schema import BY_CLAIM, BY_DUE, CLAIMED, READY, delivery, worker
from roovet_webhooks.inbox.sql.statements import by_index

if TYPE_CHECKING:
    from roovet_webhooks.inbox.records import WorkerRecord
    from roovet_webhooks.inbox.sql.store import Store


class SQLCensus(NamedTuple):
    """Counts in an open transaction; see `StoreCounts`."""

    store: Store
    connection: Connection
    now: int

    def free_disk(self) -> int | None:
        """Return the free bytes on the disk."""
        return self.store.free_disk()

    def open_deliveries(self, most: int) -> int:
        """Count the open deliveries, at most so many of each state."""
        count = 0
        for state, index in ((READY, BY_DUE), (CLAIMED, BY_CLAIM)):
            one_each = by_index(select(literal_column("1", Integer)).select_from(delivery).where(state), index)
            some = one_each.limit(most).subquery()
            count += self.connection.execute(select(func.count()).select_from(some)).scalar_one()
        return count

    def workers(self, endpoint: str) -> int:
        """Count the workers of an endpoint."""
        return workers(self.connection, endpoint, self.now)


def workers(connection: Connection, endpoint: str, now: int) -> int:
    """Count the workers of an endpoint that have been heard of within a minute."""
    alive = worker.c.seen_at >= now - HEARTBEAT_IS_OLD
    query = select(func.count()).select_from(worker).where(worker.c.endpoint == endpoint, alive)
    return connection.execute(query).scalar_one()


def all_workers(connection: Connection, now: int) -> list[WorkerRecord]:
    """Return the workers that have been heard of within a minute."""
    query = select(worker).where(worker.c.seen_at >= now - HEARTBEAT_IS_OLD)
    return [worker_of(row) for row in connection.execute(query.order_by(worker.c.endpoint, worker.c.owner))]
