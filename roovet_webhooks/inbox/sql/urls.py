"""Which store a URL or an engine names."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.inbox.sql.postgresql import PostgreSQLStore
from roovet_webhooks.inbox.sql.sqlite import SQLiteStore

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from roovet_webhooks.inbox.sql.store import Clock

_WANTED = (
    "inbox= must be a database URL such as 'sqlite:///roovet.db' or 'postgresql+psycopg://user@host/database', or a "
    "SQLAlchemy engine that is not an async one"
)
_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}


def store_of(where: str | URL | Engine, clock: Clock | None) -> SQLiteStore | PostgreSQLStore:
    """Return the store that a URL or an engine names.

    Raises:
        ConfigurationError: It is not one that an inbox can live in.
    """
    engine, url = (where, where.url) if isinstance(where, sqlalchemy.Engine) else (None, _url_of(where))
    backend = url.drivername.partition("+")[0]
    if backend not in _DRIVERS:
        hint = ": write postgresql+psycopg://…" if backend == "postgres" else ""
        message = f"an inbox lives in SQLite or PostgreSQL, not in {backend!r}{hint}"
        raise ConfigurationError(message)
    driver = _driver_of(url) if engine is None else engine.dialect.driver
    if driver != _DRIVERS[backend]:
        message = (
            f"an inbox in {backend} uses the driver {_DRIVERS[backend]}, not {driver}: write "
            f"{backend}+{_DRIVERS[backend]}://… (an async application uses it as well)"
        )
        raise ConfigurationError(message)
    if engine is not None and engine.get_execution_options().get("schema_translate_map"):
        message = (
            "an inbox does not follow the engine's schema_translate_map: name its schema in the URL, with "
            "?options=-csearch_path%3D<schema>"
        )
        raise ConfigurationError(message)
    if backend == "sqlite":
        return SQLiteStore(url, clock or time.time, engine)
    if "@" in f"{url.host}{url.database}":
        # What stands before it is the rest of the password, and would be shown with the host.
        message = "the inbox's URL has an @ too many: in a password write %40 for it, %2F for /, and %3A for :"
        raise ConfigurationError(message)
    try:
        return PostgreSQLStore.from_url(url, clock) if engine is None else PostgreSQLStore(engine, clock)
    except ImportError as error:
        message = "the driver psycopg is not installed; run: pip install 'roovet-webhooks[inbox]'"
        raise ConfigurationError(message) from error


def _url_of(where: str | URL) -> URL:
    try:
        return sqlalchemy.make_url(where)
    except SQLAlchemyError:
        # Not its text, which may have a password.
        raise ConfigurationError(_WANTED) from None


def _driver_of(url: URL) -> str:
    return url.drivername.partition("+")[2] or url.get_driver_name()
