"""One of the project's databases, as an inbox uses it: durable transactions, and errors that say what is wrong."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from time import monotonic, time
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar
from weakref import WeakSet

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, IntegrityError, ProgrammingError, connections, transaction
from django.utils.connection import ConnectionDoesNotExist

from roovet_webhooks.django.dialects import dialect_of
from roovet_webhooks.django.lending import close, close_if_stale, inherited
from roovet_webhooks.django.tables import NOT_SET_UP
from roovet_webhooks.errors import ConfigurationError, InboxUnavailable
from roovet_webhooks.inbox.deadlines import LOOK_SECONDS, OWN_SECONDS, cut_after
from roovet_webhooks.inbox.faults import meaning_of
from roovet_webhooks.inbox.threads import kind_of_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from roovet_webhooks.django.dialects import Dialect
    from roovet_webhooks.inbox.write_lock import WriteLock

T = TypeVar("T")

_OF_THE_STORE = (Error, OSError)
_TRIES = 3
_AT_ONCE = 1.0  # seconds


class Database:
    """A database of the project.

    Args:
        alias: Its name in ``settings.DATABASES``.
        wait: Seconds to wait for a lock at most, where that can be set.
        clock: Unix seconds; the database server's own clock, or else the process's, when ``None``.
    """

    def __init__(self, alias: str, wait: float, clock: Callable[[], float] | None) -> None:
        self.alias: str = alias
        self._wait = wait
        self._clock = clock
        self._left: WeakSet[BaseDatabaseWrapper] = WeakSet()
        _aliases.add(alias)

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """This thread's connection.

        Raises:
            ConfigurationError: The settings have no such database, or there are none.
        """
        try:
            return connections[self.alias]
        except ImproperlyConfigured as error:
            raise ConfigurationError(NOT_SET_UP) from error
        except ConnectionDoesNotExist as error:
            message = f"settings.DATABASES has no {self.alias!r}, in which the inbox is to be"
            raise ConfigurationError(message) from error

    @property
    def dialect(self) -> Dialect:
        """What is special about it."""
        return dialect_of(self.connection)

    @property
    def location(self) -> str:
        """Which database it is, whatever alias it has, without a password."""
        connection = self.connection
        settings = connection.settings_dict
        where = ":".join(str(settings[name]) for name in ("HOST", "PORT") if settings.get(name))
        return f"Django's {connection.vendor} database {settings.get('NAME')!s} {where}".rstrip()

    def check(self) -> None:
        """Check that it can hold an inbox.

        Raises:
            InboxUnavailable: It cannot be reached.
            ConfigurationError: The settings have no such database, or it cannot commit.
        """
        if not self.read(lambda: self.connection.features.supports_transactions):
            message = f"the database {self.alias!r} has no transactions (MyISAM): an inbox needs them"
            raise ConfigurationError(message)

    def run(self, work: Callable[[int], T], *, durable: bool = True) -> T:
        """Carry out work in a transaction, more than once when another transaction got in its way.

        Args:
            work: Takes now, in epoch milliseconds.
            durable: Whether what was done must be on disk when this returns, and not when somebody else's transaction
                around it commits.

        Raises:
            InboxUnavailable: The database is down, locked, read-only or full, or has no such tables.
            ConfigurationError: Somebody else's transaction is around it, and it was to be durable.
        """
        left = _TRIES
        while True:
            left -= 1
            began = monotonic()
            before: Any = self.connection.connection
            try:
                with self.lent() as connection, self.atomic(connection, durable=durable) as after:
                    return work(self.begin(connection, after))
            except _OF_THE_STORE as error:
                if not left or monotonic() - began > _AT_ONCE or not self._would_succeed(error, before):
                    raise self.unavailable(error) from None  # its traceback has the statement's parameters

    def read(self, work: Callable[[], T]) -> T:
        """Look something up; errors as `run`."""
        return self.read_at(lambda _now: work())

    def read_at(self, work: Callable[[int], T]) -> T:
        """Look something up by what time it is in epoch milliseconds; errors as `run`."""
        try:
            with self.lent() as connection:
                connection.ensure_connection()
                with cut_after(connection.connection, LOOK_SECONDS):
                    return work(self._time(self.dialect.now(connection)))
        except _OF_THE_STORE as error:
            raise self.unavailable(error) from None

    def _would_succeed(self, error: Error | OSError, before: object) -> bool:
        """Say whether a transaction that failed may succeed at once."""
        if isinstance(error, IntegrityError) or meaning_of(error) == "conflict":
            return True
        # One that a restarted server has forgotten has been closed by now, or replaced, and the next one works.
        return before is not None and self.connection.connection is not before

    @contextmanager
    def lent(self) -> Generator[BaseDatabaseWrapper]:
        """Lend this thread's connection, and leave it as Django does at the end of a request.

        In a thread that serves no request nobody else would close it. One that leads to a server which ends it, or only
        reads, is closed whatever it says of itself: it answers, and writes nothing.
        """
        connection = self.connection
        opened = connection.connection is None
        try:
            yield connection
        except _OF_THE_STORE as error:
            self.note(error)
            raise
        finally:
            if connection in self._left and not connection.in_atomic_block:
                self._left.discard(connection)
                close(connection)
            elif opened or connection.errors_occurred:
                close_if_stale(connection)

    def note(self, error: Error | OSError) -> None:
        """Note what an error says of this thread's connection; `lent` closes it where it is of no more use."""
        if meaning_of(error) == "leave":
            self._left.add(self.connection)

    @contextmanager
    def atomic(self, connection: BaseDatabaseWrapper, *, durable: bool = True) -> Generator[ExitStack]:
        """Open a transaction that commits at the end of the block; what the value is given ends after that."""
        if not connection.in_atomic_block and not connection.get_autocommit():
            message = (
                f"the database {self.alias!r} has AUTOCOMMIT off, so that nothing commits what the inbox writes: "
                "remove the setting"
            )
            raise ConfigurationError(message)
        with ExitStack() as after, ExitStack() as block:
            try:
                with _without_lock(connection):
                    block.enter_context(transaction.atomic(using=self.alias, durable=durable))
            except RuntimeError as error:
                message = (
                    "the inbox was used inside of a transaction of the application's (atomic, ATOMIC_REQUESTS, or a "
                    "handler's own), whose rollback would undo what the sender has been told: mount dispatch_view, "
                    "and call the receiver outside of atomic blocks"
                )
                raise ConfigurationError(message) from error
            yield after

    def begin(self, connection: BaseDatabaseWrapper, after: ExitStack, seconds: float = OWN_SECONDS) -> int:
        """Execute the first statement of a transaction.

        Args:
            connection: In a transaction that `atomic` has opened.
            after: What `atomic` has given.
            seconds: After which the connection is cut.

        Returns:
            Now, in epoch milliseconds.
        """
        if (write_lock := self._write_lock(connection)) is not None:
            after.callback(write_lock.take().give_back)
        after.enter_context(cut_after(connection.connection, seconds))
        return self._time(self.dialect.begin(connection, self._wait))

    def _write_lock(self, connection: BaseDatabaseWrapper) -> WriteLock | None:
        # Tests put another database under the same alias.
        which = self.alias, str(connection.settings_dict["NAME"]), kind_of_threads()
        if which not in _write_lock:
            _write_lock.setdefault(which, self.dialect.write_lock(connection, self._wait))
        return _write_lock[which]

    def _time(self, servers: int | None) -> int:
        if servers is None or self._clock is not None:
            return round((self._clock or time)() * 1000)
        return servers

    @staticmethod
    def is_its_own(error: BaseException) -> TypeGuard[Error | OSError]:
        """Return whether an error is one of the database, or of the way to it."""
        return isinstance(error, _OF_THE_STORE)

    def unavailable(self, error: Error | OSError) -> InboxUnavailable:
        """Return the error for a database that does not do its work, without a statement or its parameters."""
        lines = str(error).splitlines()
        reason = lines[0][:200] if lines else type(error).__name__
        if isinstance(error, ProgrammingError) or "no such table" in reason:
            reason += "; have its migrations been applied (manage.py migrate)?"
        return InboxUnavailable(f"the inbox in the database {self.alias!r} cannot be used: {reason}")


@contextmanager
def _without_lock(connection: Any) -> Generator[None]:  # noqa: ANN401 - SQLite's has one attribute more
    """Have a transaction begin without SQLite's lock, whatever the settings say: its first statement takes it."""
    connection.ensure_connection()
    mode = getattr(connection, "transaction_mode", None)
    if mode is None:
        yield
        return
    connection.transaction_mode = None
    try:
        yield
    finally:
        connection.transaction_mode = mode


# Connections and locks are a process's own. Django says nothing about forks, but a delivery must not be lost to one.
_aliases: set[str] = set()
_write_lock: dict[tuple[str, str, object], WriteLock | None] = {}


def _forget_inherited() -> None:
    _write_lock.clear()
    if not (_aliases and settings.configured):
        return  # and so without a connection
    for connection in connections.all(initialized_only=True):
        if connection.alias in _aliases and connection.connection is not None:
            inherited.append(connection.connection)
            connection.connection = None


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_forget_inherited)
