"""Where the sandbox keeps its state: one SQLite database, in memory or in a file, written by one at a time."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    StaticPool,
    Table,
    Text,
    create_engine,
    event,
    insert,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from typing import Any

    from sqlalchemy import Connection

# Times are Unix milliseconds of the sandbox's clock, money is whole cents.
metadata: MetaData = MetaData()


def _reference(name: str, table: Table, **options: Any) -> Column[int]:  # noqa: ANN401 - options of a column
    return Column(name, Integer, ForeignKey(table.c.id, ondelete="CASCADE"), **options)


account: Table = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", Text, nullable=False, unique=True),
    Column("email", Text, nullable=False, unique=True),
)

api_key: Table = Table(
    "api_key",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    _reference("account_id", account, nullable=False),
    Column("scopes", Text, nullable=False),  # separated by spaces
)

# Double entry: the entries of one movement add up to zero, and a balance is the sum of an account's entries.
movement: Table = Table(
    "movement",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", Text, nullable=False),  # the transfer or order that moved it
    Column("created_at", Integer, nullable=False),
    # When what was received may be spent.
    Column("available_at", Integer, nullable=False),
)

entry: Table = Table(
    "entry",
    metadata,
    Column("id", Integer, primary_key=True),
    _reference("movement_id", movement, nullable=False),
    _reference("account_id", account, nullable=False),
    Column("amount_cents", Integer, nullable=False),
    Index("entry_account", "account_id", "id"),
    sqlite_autoincrement=True,
)

product: Table = Table(
    "product",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("price_cents", Integer, nullable=False),
    Column("available", Boolean, nullable=False),
    Column("created_at", Integer, nullable=False),
    sqlite_autoincrement=True,
)

transfer: Table = Table(
    "transfer",
    metadata,
    Column("id", Integer, primary_key=True),
    _reference("sender_id", account, nullable=False),
    _reference("receiver_id", account, nullable=False),
    Column("amount_cents", Integer, nullable=False),
    Column("note", Text),
    Column("created_at", Integer, nullable=False),
    sqlite_autoincrement=True,
)

cart: Table = Table(
    "cart",
    metadata,
    Column("id", Integer, primary_key=True),
    _reference("account_id", account, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("updated_at", Integer, nullable=False),
    sqlite_autoincrement=True,
)

cart_item: Table = Table(
    "cart_item",
    metadata,
    _reference("cart_id", cart, primary_key=True),
    _reference("product_id", product, primary_key=True),
    Column("quantity", Integer, nullable=False),
)

order: Table = Table(
    "orders",
    metadata,
    Column("id", Integer, primary_key=True),
    _reference("account_id", account, nullable=False),
    _reference("cart_id", cart, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("payment_method", Text, nullable=False),
    Column("total_cents", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),
    Index("orders_account", "account_id", "id"),
    sqlite_autoincrement=True,
)

# What an order was made of: prices may change later.
order_item: Table = Table(
    "order_item",
    metadata,
    _reference("order_id", order, primary_key=True),
    _reference("product_id", product, primary_key=True),
    Column("name", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("price_cents", Integer, nullable=False),
)

idempotency: Table = Table(
    "idempotency",
    metadata,
    _reference("api_key_id", api_key, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),  # SHA-256 of method, path and body
    Column("status", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Integer, nullable=False),
    Index("idempotency_age", "created_at"),
)

endpoint: Table = Table(
    "endpoint",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    # During a rotation both secrets sign.
    Column("old_secret", Text),
    Column("old_secret_expires", Integer),
    sqlite_autoincrement=True,
)

# What happened, as the bytes that are signed: a copy of a delivery is the same bytes.
outbox: Table = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("event", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Integer, nullable=False),
    sqlite_autoincrement=True,
)

# One row for each event and endpoint: what is still to be sent, and what became of it.
message: Table = Table(
    "message",
    metadata,
    Column("id", Integer, primary_key=True),
    _reference("outbox_id", outbox, nullable=False),
    _reference("endpoint_id", endpoint, nullable=False),
    Column("state", Text, nullable=False),  # pending, delivered, failed
    Column("due_at", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Index("message_due", "state", "due_at"),
    sqlite_autoincrement=True,
)

attempt: Table = Table(
    "attempt",
    metadata,
    Column("id", Integer, primary_key=True),
    _reference("message_id", message, nullable=False, index=True),
    Column("at", Integer, nullable=False),
    Column("status", Integer),  # the HTTP status that the endpoint answered
    Column("milliseconds", Integer, nullable=False),
    Column("chaos", Text),  # what chaos did to this one
    Column("error", Text),
    sqlite_autoincrement=True,
)

setting: Table = Table(
    "setting", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False)
)


def insert_row(connection: Connection, table: Table, **values: object) -> int:
    """Insert a row, and return its number."""
    inserted = connection.execute(insert(table).values(**values)).inserted_primary_key
    return int(inserted[0]) if inserted else 0


class Database:
    """The database, which one transaction at a time may use.

    Requests that come together take turns: what one of them decides, the next one sees.

    Args:
        path: A file, which outlives the process; in memory when ``None``.

    Attributes:
        commits: How many transactions may have changed something; whoever waits for a change looks at it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.commits: int = 0
        self._engine = create_engine(
            "sqlite://" if path is None else f"sqlite:///{path}",
            # One connection serves all threads, one after another.
            poolclass=StaticPool,
            connect_args={"check_same_thread": False},
        )
        self._turn = threading.RLock()
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        with self.begin() as connection:
            metadata.create_all(connection)

    @contextmanager
    def begin(self) -> Generator[Connection]:
        """Run one transaction: all of it holds, or, after an exception, nothing of it."""
        with self.look() as connection:
            yield connection
        self.commits += 1

    @contextmanager
    def look(self) -> Generator[Connection]:
        """Run a transaction that changes nothing."""
        with self._turn, self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the database. What was in memory is gone."""
        with self._turn:
            self._engine.dispose()


def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's connection, untyped by SQLAlchemy
    connection.isolation_level = None  # transactions begin where SQLAlchemy says, not before the first write
    connection.execute("PRAGMA foreign_keys=ON")
    # A killed process loses nothing; only a power cut could, and a sandbox may forget then.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
