"""A driver's connection that one handler's transaction has for itself, under Django's connection of the thread."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from django.db import Error

if TYPE_CHECKING:
    from collections.abc import Generator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from roovet_webhooks.django.dialects import Dialect


@contextmanager
def own_connection(connection: BaseDatabaseWrapper, dialect: Dialect) -> Generator[bool]:
    """Give Django's connection a new one of the driver's for a block, and close it at the end.

    What a handler has set in the session ends with it, and what a handler has kept is dead. The one from before comes
    back as it was. A block inside of a transaction, as in a ``TestCase``, and a database in memory keep what they have.

    Args:
        connection: Of this thread.
        dialect: Makes the driver's connection.

    Yields:
        Whether there is a new one.
    """
    is_settled = connection.connection is None or connection.autocommit
    if connection.in_atomic_block or not is_settled or dialect.is_in_memory(connection):
        yield False
        return
    close_if_stale(connection)
    process, before = os.getpid(), vars(connection).copy()
    connection.connection = None
    try:
        dialect.connect(connection)
        yield True
    finally:
        close(connection)
        if os.getpid() != process:  # pragma: no cover - in a child, which coverage does not see; tests fork
            inherited.append(before["connection"])
            before["connection"] = None
        vars(connection).update(before)


# Connections of a parent process: closing one in the child would drop the parent's locks, or end its session.
inherited: list[object] = []


def close(connection: BaseDatabaseWrapper) -> None:
    """Close a connection so that no pool keeps it."""
    if connection.connection is not None:
        with suppress(Error, OSError), connection.wrap_database_errors:
            connection.connection.close()
    with suppress(Error, OSError):  # closed
        connection.close()
    connection.connection = None


def close_if_stale(connection: BaseDatabaseWrapper) -> None:
    """Close a connection that is broken or has been open for longer than ``CONN_MAX_AGE``."""
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
