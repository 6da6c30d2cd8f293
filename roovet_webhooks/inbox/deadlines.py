"""A bound on the time for which anybody waits for a server's answer.

A host that dies in the middle of a statement sends nothing more, not even that the connection has ended: whoever waits
for its answer waits for hours. The server's own limits died with it. So a thread looks at the connections that are in
use, and cuts those that have been for too long. Whoever waits on one then has an error at once.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from roovet_webhooks.errors import InboxUnavailable
from roovet_webhooks.inbox.threads import kind_of_threads, started

if TYPE_CHECKING:
    from collections.abc import Generator

LOOK_EVERY = 1.0  # seconds
# For a transaction of the inbox's own, which waits up to 5 s for a lock.
OWN_SECONDS = 30.0
# For a look of an operator's at many rows.
LOOK_SECONDS = 300.0
# For making or upgrading the tables.
SCHEMA_SECONDS = 3600.0
# What is added to the limit of a handler's transaction: the server ends it first, if there is one.
GRACE = 10.0


class _Bound:
    """A connection in use.

    Attributes:
        end: Its socket, by a descriptor of our own: the driver may close its own at any time, and the system gives the
            number to something else.
        number: The driver's descriptor of it.
        until: Monotonic seconds.
    """

    __slots__ = ("end", "number", "until")

    def __init__(self, end: socket.socket, number: int, until: float) -> None:
        self.end = end
        self.number = number
        self.until = until

    def cut_in_child(self) -> None:  # pragma: no cover - in a child, which coverage does not see; tests fork
        """Give the driver of a forked child a dead end: its words would be taken for those of its parent."""
        with suppress(OSError):
            if os.path.sameopenfile(self.number, self.end.fileno()):
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    os.dup2(ours.fileno(), self.number)


class _Watchdog:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a forked child or with another kind of threads."""
        self._kind = kind_of_threads()
        self._lock = threading.Lock()
        self._bounds: set[_Bound] = set()
        self._thread: threading.Thread | None = None

    def cut_in_child(self) -> None:  # pragma: no cover - in a child, which coverage does not see; tests fork
        """Cut a forked child off from the connections that its parent uses."""
        for bound in self._bounds:
            bound.cut_in_child()
        self.reset()

    def add(self, bound: _Bound) -> None:
        if self._kind is not kind_of_threads():
            self.reset()
        with self._lock:
            self._bounds.add(bound)
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="roovet-webhooks-watchdog", daemon=True)
                with suppress(InboxUnavailable):  # the next one asks for it again
                    self._thread = started(thread)

    def discard(self, bound: _Bound) -> None:
        with self._lock:  # not while it is being cut
            self._bounds.discard(bound)
            bound.end.close()

    def _serve(self) -> None:
        while self._look():
            time.sleep(LOOK_EVERY)

    def _look(self) -> bool:
        """Cut what has been in use for too long; return whether anything is in use."""
        with self._lock:
            now = time.monotonic()
            for bound in self._bounds:
                if now >= bound.until:
                    with suppress(OSError):  # the other side has closed it
                        bound.end.shutdown(socket.SHUT_RDWR)
            if not self._bounds:
                self._thread = None
            return bool(self._bounds)


_WATCHDOG = _Watchdog()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_WATCHDOG.cut_in_child)


@contextmanager
def cut_after(driver: Any, seconds: float) -> Generator[None]:  # noqa: ANN401 - any driver's connection
    """Cut a connection to a server that is still in use at the end of a time.

    Args:
        driver: The driver's connection. One without a ``fileno``, as SQLite's and PyMySQL's, has no bound here.
        seconds: For which it may be in use.
    """
    bound = _bound_of(driver, seconds)
    if bound is None:
        yield
        return
    _WATCHDOG.add(bound)
    try:
        yield
    finally:
        _WATCHDOG.discard(bound)


def _bound_of(driver: Any, seconds: float) -> _Bound | None:  # noqa: ANN401 - any driver's connection
    fileno = getattr(driver, "fileno", None)
    if fileno is None:
        return None
    try:
        number: int = fileno()
        end = socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM)
    except Exception:  # noqa: BLE001 - it is closed, or no descriptor is left: the statement that comes next says so
        return None
    return _Bound(end, number, time.monotonic() + seconds)
