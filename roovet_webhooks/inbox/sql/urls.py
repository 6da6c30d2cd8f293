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


def store_of(where: str | URL | Engine, clock: Clock | None) -> SQLiteStore | PostgreSQLStore:
    """Return the store that a URL or an engine names.

    Raises:
        ConfigurationError: It is not one that an inbox can live in.
    """
    engine = None
    if isinstance(where, sqlalchemy.Engine):
        if where.get_execution_options().get("schema_translate_map"):
            message = (
                "an inbox does not follow the engine's schema_translate_map: name its schema in the URL, with "
                "?options=-csearch_path%3D<schema>"
            )
            raise ConfigurationError(message)
        engine, name, url = where, where.dialect.name, where.url
        if name == "postgresql":
            return PostgreSQLStore(where, clock)
    else:
        try:
            url = sqlalchemy.make_url(where)
            name = url.get_backend_name()
            if name == "postgresql":
                return PostgreSQLStore.from_url(url, clock)
        except (SQLAlchemyError, ImportError) as error:
            message = (
                "inbox= must be a database URL such as 'sqlite:///roovet.db' or "
                "'postgresql+psycopg://user@host/database', or a SQLAlchemy engine that is not an async one "
                f"({type(error).__name__})"
            )
            raise ConfigurationError(message) from None
    if name == "sqlite":
        return SQLiteStore(url, clock or time.time, engine)
    message = f"an inbox lives in SQLite or PostgreSQL, not in {name!r}"
    raise ConfigurationError(message)
