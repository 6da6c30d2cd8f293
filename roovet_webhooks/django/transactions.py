"""The transaction in which a handler's own rows, the record of its success and the check of its fence commit together.

It is one of Django's, so that whatever the handler does through the ORM is in it. The inbox alone commits it.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from django.db import Error, IntegrityError, transaction

from roovet_webhooks.django.lending import own_connection
from roovet_webhooks.errors import ConfigurationError, InboxUnavailable
from roovet_webhooks.inbox.deadlines import GRACE
from roovet_webhooks.inbox.drivers import close_safely, guard_driver
from roovet_webhooks.inbox.handler_transaction import AfterCommit
from roovet_webhooks.inbox.limits import SERVER_SECONDS, committed_by

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from roovet_webhooks.django.claims import Claims
    from roovet_webhooks.inbox.protocol import Claim


_ENDED = (
    "the inbox alone commits or rolls back a delivery's transaction, with the record of the handler's success: leave "
    "COMMIT, ROLLBACK and DDL out, and put what may fail into a transaction.atomic() of its own; to undo, raise"
)


class _UndoneError(Exception):
    """The handler raised; the transaction is rolled back."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class HandlerTransaction:
    """One handler's transaction at one delivery.

    It begins with the first statement, so that a handler which does its slow work first holds nobody up meanwhile:
    until then no lock is taken and no clock runs. The success is recorded first. So whatever commits the handler's rows
    commits the record with them, and a retry does not run the handler again.

    Args:
        claims: Who has claimed.
        claim: What.
        handler: Name of the handler.

    Attributes:
        connection: Django's connection, of the thread in which the handler runs.
    """

    def __init__(self, claims: Claims, claim: Claim, handler: str) -> None:
        self._claims = claims
        self.connection: BaseDatabaseWrapper = claims.database.connection
        self._claim = claim
        self._handler = handler
        self._process = os.getpid()
        self._beginning = False
        # Set at the beginning; it is not there any more when somebody has ended the transaction.
        self._savepoint: str | None = None
        self._fault: Exception | None = None
        self._after = ExitStack()
        self._owner: int | None = None  # the thread that has taken the connection back

    def guard(self) -> None:
        """Refuse a commit or rollback with the driver's own connection."""
        close_safely(self.connection.connection)
        guard_driver(self.connection.connection, self._ending, self._claims.database.dialect.ends)

    def _ending(self) -> None:
        if self._owner != threading.get_ident():
            self._fault = ConfigurationError(_ENDED)
            raise self._fault

    def begin(self) -> str:
        """Begin, at the first call; return a savepoint at the beginning.

        Raises:
            LeaseLost: The claim's fence has moved on.
            InboxUnavailable: The database is locked, or down.
            ConfigurationError: The handler has had a transaction before.
        """
        if self._fault is not None:
            # A handler that caught it must not go on outside of what was to be its transaction.
            raise self._fault
        database, connection = self._claims.database, self.connection
        if connection is not database.connection or os.getpid() != self._process:
            message = f"the transaction of {self._handler} belongs to the thread in which the handler was called"
            raise ConfigurationError(message)
        if self._savepoint is None:
            self._beginning = True
            try:
                database.begin(connection, self._after, SERVER_SECONDS + GRACE)
                # Not locked before the end: meanwhile the claim is renewed.
                self._claims.check_held(self._claim, lock=False)
                self._record_success()
                self._savepoint = connection.savepoint() or ""
                self._bound.begin()
            except Exception as error:  # noqa: BLE001 - raised at each further use
                self._fault = error
                if database.is_its_own(error):
                    database.note(error)
                    self._fault = self._bound.exceeded() or database.unavailable(error)
                raise self._fault from None
            finally:
                self._beginning = False
        return self._savepoint

    def _record_success(self) -> None:
        try:
            self._claims.record_success(self._claim, self._handler)
        except IntegrityError:
            message = f"{self._handler} has had its transaction for this delivery; put all of its writes into one"
            raise ConfigurationError(message) from None

    def _before(
        self, execute: Callable[..., object], sql: object, params: object, many: object, context: dict[str, Any]
    ) -> object:
        """Begin before a statement is executed, and let none end the transaction."""
        if not self._beginning:
            self.begin()
            try:
                if self._claims.database.dialect.ends(str(sql)):
                    self._ending()
                self._bound.check()
                self._bound.watch(context["cursor"].cursor)
            except ConfigurationError as error:
                self._fault = error
                raise
        return execute(sql, params, many, context)

    @contextmanager
    def part(self) -> Generator[BaseDatabaseWrapper]:
        """Undo what a block writes if it raises, and nothing else: what `Delivery.transaction` is in here."""
        self.begin()
        with transaction.atomic(using=self._claims.database.alias):
            yield self.connection

    @contextmanager
    def running(self, after: ExitStack) -> Generator[None]:
        """Run the handler in it, and record its success.

        Args:
            after: What ends after the commit.

        Raises:
            LeaseLost: The claim's fence has moved on.
            ConfigurationError: As `finish`.
            _UndoneError: The handler raised.
        """
        self._after = after
        self._bound = self._claims.database.dialect.bound(self.connection, after.close)
        try:
            with self.connection.execute_wrapper(self._before):
                yield
        except BaseException as error:  # noqa: BLE001 - raised again, when all is rolled back
            self._take_back()
            if self._claims.database.is_its_own(error):
                self._claims.database.note(error)
            # What the handler saw of a transaction that was ended, or refused an end, says nothing.
            raise _UndoneError(self._bound.exceeded() or error) from None
        self._take_back()
        self._finish()

    def _take_back(self) -> None:
        self._owner = threading.get_ident()
        self._bound.finish()

    def _finish(self) -> None:
        """Check that the transaction is the one that was begun, and that the claim holds.

        Raises:
            LeaseLost: The claim's fence has moved on.
            ConfigurationError: The handler has rolled back, or ended the transaction itself, or had one before, or took
                too long.
        """
        savepoint = self.begin()
        self._bound.check_whole()
        if transaction.get_rollback(using=self._claims.database.alias):
            message = (
                f"the transaction of {self._handler} was marked for a rollback (set_rollback, or a database error that "
                "it caught): to undo, raise; put what may fail into a transaction.atomic() of its own"
            )
            raise ConfigurationError(message)
        try:
            self.connection.savepoint_commit(savepoint)
        except Error as error:
            raise ConfigurationError(_ENDED) from error
        self._claims.check_held(self._claim, lock=True)

    def check_undone(self, error: BaseException) -> None:
        """Check after a failure that the handler has not committed in a way that could not be refused.

        Args:
            error: What has failed.

        Raises:
            CommittedByHandler: It has.
        """
        if self._savepoint is None:
            return
        with suppress(InboxUnavailable):  # if it was committed, the record of the success has been, too
            if self._claims.database.read(lambda: self._claims.has_succeeded(self._claim, self._handler)):
                raise committed_by(self._handler) from error


@contextmanager
def handler_transaction(claims: Claims, claim: Claim, handler: str) -> Generator[HandlerTransaction]:
    """Open the transaction of a handler.

    Raises:
        LeaseLost: The claim's fence has moved on, at the beginning or at the end; nothing was changed.
        ConfigurationError: The handler has rolled back, or tried to commit, or had one before, or took too long;
            nothing was changed.
        CommittedByHandler: The handler has committed in a way that could not be refused.
        AfterCommit: It was committed, and then a function raised that the handler had passed to ``on_commit``.
    """
    database = claims.database
    ours = HandlerTransaction(claims, claim, handler)
    committed: list[bool] = []
    try:
        with database.lent() as connection:
            outermost = not connection.in_atomic_block  # it is not in a TestCase, where nothing is committed
            with own_connection(connection, database.dialect) as is_own, database.atomic(connection) as after:
                if is_own:
                    ours.guard()
                if outermost:
                    # First of all: what the handler has left for after the commit may want to write, too.
                    transaction.on_commit(after.close, using=database.alias)
                    transaction.on_commit(lambda: committed.append(True), using=database.alias)
                with ours.running(after):
                    yield ours
    except _UndoneError as undone:
        ours.check_undone(undone.error)
        # Raised out here, where what a handler's own SQL did wrong is not taken for a fault of the inbox.
        raise undone.error from undone.error.__cause__
    except Exception as error:
        if committed:
            raise AfterCommit(error) from None
        ours.check_undone(error)
        # A constraint that is checked at the commit is the handler's business.
        if database.is_its_own(error) and not isinstance(error, IntegrityError):
            raise database.unavailable(error) from None
        raise
