"""The tables of a SQL inbox, and how they come to be: versioned, created and upgraded by the package itself.

A change of the tables expands first and contracts a release later, so that old and new processes run beside
each other: code runs on a schema as long as its own version is at least the schema's ``min_compatible``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    and_,
    insert,
    inspect,
    literal_column,
    or_,
    select,
    update,
)

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.inbox.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Connection

VERSION = 3
MIN_COMPATIBLE = 1

metadata: MetaData = MetaData()
# SQLite counts rows by INTEGER alone.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

delivery: Table = Table(
    "roovet_delivery",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("endpoint", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    # The identity's time, 0 where dedupe= made the key; it stands before the key so that what arrives together
    # lies together.
    Column("key_ts", BigInteger, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("ts", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("body", LargeBinary),
    Column("codec", Text, nullable=False),
    Column("secret_name", Text, nullable=False),
    Column("signed_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text),
    Column("available_at", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("round", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", BigInteger),
    Column("handed_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("last_error", Text),
    # JSON: names of the handlers that were registered for it when it was accepted. NULL means whatever is registered.
    Column("handlers", Text),
    # Since when it has been going back because no process has had one of them.
    Column("unhandled_since", BigInteger),
    Column("history", LargeBinary),
    UniqueConstraint("endpoint", "tenant", "key_ts", "key", name="roovet_delivery_identity"),
    # A number is never given twice, so that nobody replays another delivery than the one that was seen.
    sqlite_autoincrement=True,
)

handled: Table = Table(
    "roovet_handled",
    metadata,
    Column("delivery_id", _NUMBER, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True),
    Column("handler", Text, primary_key=True),
    Column("fence", BigInteger, nullable=False),
)

worker: Table = Table(
    "roovet_worker",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("seen_at", BigInteger, nullable=False),
    # JSON: what it serves, names of handlers and patterns of events. NULL when it has not said so.
    Column("handlers", Text),
    Column("patterns", Text),
)

meta: Table = Table(
    "roovet_meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False)
)

_c = delivery.c


def is_in(*states: State, state: ColumnElement[Any] = _c.state) -> ColumnElement[bool]:
    """Return the condition that a delivery is in one of the states, written out: partial indexes need literals.

    Args:
        states: The states.
        state: The column, where it is an alias's.
    """
    return or_(*(state == literal_column(f"'{name}'") for name in states))


READY = is_in(State.READY)
CLAIMED = is_in(State.CLAIMED)
DONE = is_in(State.DONE)
OPEN = is_in(State.READY, State.CLAIMED)
ENDED = is_in(State.DONE, State.DEAD)
UNFINISHED = is_in(State.READY, State.CLAIMED, State.DEAD)
CRASHED = _c.crashes > literal_column("0")
HAS_BODY = _c.body.is_not(None)
UNHANDLED = _c.unhandled_since.is_not(None)


def _partial(name: str, where: ColumnElement[bool], *columns: ColumnElement[object]) -> Index:
    return Index(f"roovet_delivery_{name}", *columns, sqlite_where=where, postgresql_where=where)


BY_DUE: Index = _partial("ready", READY, _c.endpoint, _c.available_at, _c.id)
BY_CRASHED: Index = _partial("suspect", and_(READY, CRASHED), _c.endpoint, _c.available_at)
BY_CLAIM: Index = _partial("claimed", CLAIMED, _c.endpoint, _c.tenant, _c.resource)
BY_RESOURCE: Index = _partial("resource", UNFINISHED, _c.endpoint, _c.tenant, _c.resource, _c.ts, _c.id)
BY_BODY: Index = _partial("body", and_(DONE, HAS_BODY), _c.finished_at)
BY_END: Index = _partial("ended", ENDED, _c.finished_at)
BY_HANDLER: Index = _partial("unhandled", and_(READY, UNHANDLED), _c.endpoint)


class Migration(NamedTuple):
    """A step from the version before to ``version``.

    Attributes:
        version: The version that it leads to.
        min_compatible: The oldest version of the code that runs on it.
        apply: Carries it out.
    """

    version: int
    min_compatible: int
    apply: Callable[[Connection], None]


def _record_handlers(connection: Connection) -> None:
    """Add what was registered for a delivery, and what a worker serves. Rows of older code have NULL there."""
    columns = (
        *((delivery, name) for name in ("handlers", "unhandled_since")),
        *((worker, name) for name in ("handlers", "patterns")),
    )
    for table, name in columns:
        kind = table.c[name].type.compile(connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {name} {kind}")
    BY_HANDLER.create(connection)


def _record_history(connection: Connection) -> None:
    """Add what the attempts came to."""
    kind = delivery.c.history.type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {delivery.name} ADD COLUMN history {kind}")


MIGRATIONS: Sequence[Migration] = (Migration(2, 1, _record_handlers), Migration(3, 1, _record_history))


def prepare(connection: Connection, *, migrations: Sequence[Migration] = MIGRATIONS, version: int = VERSION) -> None:
    """Create the tables, or bring them to this version. The caller holds a lock that only one process can hold.

    Raises:
        ConfigurationError: The tables are of a later version that this code must not write to, or of none.
    """
    if not inspect(connection).has_table(meta.name):
        metadata.create_all(connection)
        rows = [("version", VERSION), ("min_compatible", MIN_COMPATIBLE)]
        connection.execute(insert(meta), [{"name": name, "value": str(value)} for name, value in rows])
    found, min_compatible = versions(connection)
    if min_compatible > version:
        message = (
            f"the inbox has schema version {found}, which needs a roovet-webhooks that knows version {min_compatible}; "
            f"this one knows {version}: upgrade the package"
        )
        raise ConfigurationError(message)
    for migration in migrations:
        if migration.version > found:
            migration.apply(connection)
            for name, value in (("version", migration.version), ("min_compatible", migration.min_compatible)):
                connection.execute(update(meta).where(meta.c.name == name).values(value=str(value)))


def write_nothing_new(connection: Connection, _now: int) -> None:
    """Write what is there already: the way to find out that a file or a database can only be read."""
    connection.execute(update(meta).where(meta.c.name == "version").values(value=meta.c.value))


def versions(connection: Connection) -> tuple[int, int]:
    """Return the version of the tables, and the oldest version of the code that runs on them.

    Raises:
        ConfigurationError: The tables do not say.
    """
    found = {row.name: row.value for row in connection.execute(select(meta.c.name, meta.c.value))}
    try:
        return int(found["version"]), int(found["min_compatible"])
    except (KeyError, ValueError):
        message = f"the table {meta.name} does not say which version the inbox has; it is not one of ours, or damaged"
        raise ConfigurationError(message) from None
