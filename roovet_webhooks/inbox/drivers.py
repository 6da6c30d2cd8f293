"""Guards for the driver's own connection to a database server, which a handler can get hold of."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from roovet_webhooks.inbox.sql_text import ends_transaction

if TYPE_CHECKING:
    from collections.abc import Callable


_PATIENCE = 5.0  # seconds, until a thread has left a connection that was cut


def close_safely(driver: Any) -> None:  # noqa: ANN401 - any driver's
    """Have a psycopg connection close only when no thread is inside of it.

    Its C code keeps a pointer while it waits for the server. A close in another thread frees what that points to, and
    the process crashes. So a close cuts the connection, which ends every wait, and takes the driver's lock.

    Args:
        driver: The driver's connection. Others than psycopg's are left alone.
    """
    if not hasattr(driver, "pgconn") or "close" in vars(driver):
        return
    close, lock = driver.close, driver.lock

    @wraps(close)
    def call() -> None:
        if not lock.acquire(blocking=False):
            _cut(driver)
            if not lock.acquire(timeout=_PATIENCE):
                return  # the driver closes it when nobody refers to it any more; the server has ended its session
        try:
            close()
        finally:
            lock.release()

    driver.close = call


def _cut(driver: Any) -> None:  # noqa: ANN401 - psycopg's
    with (
        suppress(Exception),  # it is closed
        socket.fromfd(driver.fileno(), socket.AF_INET, socket.SOCK_STREAM) as end,
    ):
        end.shutdown(socket.SHUT_RDWR)


def guard_driver(driver: Any, ending: Callable[[], None], ends: Callable[[str], bool] = ends_transaction) -> None:  # noqa: ANN401 - any driver's
    """Have a driver's connection ask before it commits or rolls back.

    It asks for the rest of its life, so it must not go back to a pool. Only the connections of psycopg, MySQLdb and
    PyMySQL are guarded. What goes past their methods is not: the caller has to find out that something was committed.

    Args:
        driver: The driver's connection.
        ending: Called before a commit or rollback; raises to refuse it.
        ends: Whether the text of a statement ends a transaction.
    """
    methods: tuple[str, ...]
    if hasattr(driver, "pgconn"):
        cursors, methods = "cursor_factory", ("commit", "rollback")
    elif hasattr(driver, "cursorclass"):
        cursors, methods = "cursorclass", ("commit", "rollback", "begin", "autocommit")
    else:
        return
    setattr(driver, cursors, _checked(getattr(driver, cursors), ending, ends))
    for name in methods:
        setattr(driver, name, _asking(getattr(driver, name), ending))


def _asking(method: Callable[..., object], ending: Callable[[], None]) -> Callable[..., object]:
    @wraps(method)
    def call(*arguments: object) -> object:
        ending()
        return method(*arguments)

    return call


def _checked(cursors: Any, ending: Callable[[], None], ends: Callable[[str], bool]) -> Any:  # noqa: ANN401 - a driver's class of cursors
    """Return a class of cursors that ask before they execute what ends a transaction."""

    def checked(name: str) -> Callable[..., Any]:
        execute = getattr(cursors, name)

        @wraps(execute)
        def call(self: Any, query: Any, *arguments: object, **options: object) -> Any:  # noqa: ANN401 - the driver's
            # MySQL's drivers call execute from executemany, with the values in the text: that is data, and no code.
            if getattr(self, "_is_checked", False):
                return execute(self, query, *arguments, **options)
            text = query.as_string(self) if hasattr(query, "as_string") else query
            if ends(text.decode(errors="replace") if isinstance(text, bytes) else cast("str", text)):
                ending()
            self._is_checked = True
            try:
                return execute(self, query, *arguments, **options)
            finally:
                self._is_checked = False

        return call

    names = [name for name in ("execute", "executemany", "stream") if hasattr(cursors, name)]
    return type(cursors.__name__, (cursors,), {name: checked(name) for name in names})
