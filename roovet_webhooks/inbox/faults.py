"""What an error of a database means for an inbox: unavailable, worth another try, or the end of its connection.

The one home of error codes, for every store.
"""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

# A serialisation failure and a deadlock: the transaction may be tried again at once.
CONFLICTS: Final = frozenset({"40001", "40P01"})
DISK_FULL: Final = "53100"
# A prepared statement that is unknown, or that somebody else has prepared under the same name.
_POOLER: Final = frozenset({"26000", "42P05"})
# The server only reads, or has ended the session: a new connection may reach one that writes.
_LEAVE: Final = frozenset({"25006", "25P03", "57P01", "57P02", "57P03", "57P04", "57P05", *_POOLER})
_LEAVE_CLASSES: Final = ("08",)
# Also: no rights, a lock that did not come, a statement that was cancelled. The classes are authorisation, resources,
# limits of a connection's state, system errors and internal errors.
_UNAVAILABLE: Final = frozenset({*_LEAVE, *CONFLICTS, "42501", "55P03", "57014"})
_UNAVAILABLE_CLASSES: Final = ("08", "28", "3D", "53", "58", "XX")

# MySQL's and MariaDB's: the server has gone, shuts down, or only reads.
_MYSQL_LEAVE: Final = frozenset({1053, 1290, 1792, 1836, 1927, 2006, 2013, 2055, 4031})
_MYSQL_CONFLICTS: Final = frozenset({1020, 1213})  # a row that has changed since the transaction began, and a deadlock
_MYSQL_FULL: Final = frozenset({1021, 1041, 1114})

_SQLITE_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
# A connection to a file that could only be read does not notice that it can be written to again.
_SQLITE_LEAVE: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR})
_PRIMARY: Final = 0xFF  # of an extended result code of SQLite's, the part that says what kind of error it is

Meaning: TypeAlias = Literal["conflict", "full", "leave", "unavailable"]


def meaning_of(error: BaseException) -> Meaning | None:
    """Return what an error means, whoever has wrapped the driver's own.

    Args:
        error: Of a driver, of SQLAlchemy, of Django, or of the operating system.

    Returns:
        ``"conflict"``: the transaction gave way to another, and may be tried again at once. ``"full"``: the disk is
        full. ``"leave"``: the connection is of no more use, and a new one may be. ``"unavailable"``: the database does
        not do its work. ``None``: the statement was wrong.
    """
    for one in _chain(error):
        if (meaning := _meaning_of_one(one)) is not None:
            return meaning
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and the driver's own beneath it: SQLAlchemy calls it ``orig``, Django raises from it."""
    yield error
    for inner in (getattr(error, "orig", None), error.__cause__):
        if isinstance(inner, BaseException):
            yield inner


def _meaning_of_one(error: BaseException) -> Meaning | None:
    if isinstance(error, OSError):
        return "full" if error.errno == errno.ENOSPC else "unavailable"
    if isinstance(error, sqlite3.Error):
        return _meaning_in_sqlite(getattr(error, "sqlite_errorcode", 0))
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _meaning_of_state(state)
    number = error.args[0] if error.args else None
    return _meaning_in_mysql(number) if isinstance(number, int) else None


def _meaning_of_state(state: str) -> Meaning | None:
    if state in CONFLICTS:
        return "conflict"
    if state == DISK_FULL:
        return "full"
    if state in _LEAVE or state.startswith(_LEAVE_CLASSES):
        return "leave"
    return "unavailable" if state in _UNAVAILABLE or state.startswith(_UNAVAILABLE_CLASSES) else None


def _meaning_in_mysql(number: int) -> Meaning | None:
    if number in _MYSQL_CONFLICTS:
        return "conflict"
    if number in _MYSQL_FULL:
        return "full"
    return "leave" if number in _MYSQL_LEAVE else None


def _meaning_in_sqlite(code: int) -> Meaning | None:
    if code in _SQLITE_FULL:
        return "full"
    return "leave" if code & _PRIMARY in _SQLITE_LEAVE else None


def is_of_a_pooler(error: BaseException) -> bool:
    """Return whether a prepared statement was lost or taken: a pooler gives each transaction another session."""
    return any(getattr(one, "sqlstate", None) in _POOLER for one in _chain(error))
