"""Group commit: whatever is asked for while one transaction is being written to disk shares the next.

One thread, one connection. A caller gets an answer that is given after the commit and not before. A batch that
fails is carried out again piece by piece, so that one operation cannot take others with it. A thread that does not
come back from its transaction is replaced.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from itertools import groupby
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from roovet_webhooks.errors import InboxError, InboxFull, InboxUnavailable
from roovet_webhooks.inbox.future import InboxFuture
from roovet_webhooks.inbox.sql.store import Conflict, DiskFull, Undo
from roovet_webhooks.inbox.threads import started

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from roovet_webhooks.inbox.sql.store import Store

T = TypeVar("T")

MAX_BATCH = 256
_AT_ONCE = 1.0  # seconds
# Seconds in one transaction after which the thread is given up. Longer than a connection is waited for, and than the
# bound on a transaction of the inbox's own.
STUCK = 45.0
# The same when the inbox closes: whoever waited for an answer has been told that there is none.
STUCK_AT_THE_END = 10.0
_LOOK = 0.25  # seconds
_KEEP_ROW_COUNT: Any = {"preserve_rowcount": True}


class Operation(InboxFuture[T]):
    """Something to be done in a transaction that others share.

    Args:
        apply: Does it, ``(connection, now in milliseconds) -> answer``. It may be called again after a rollback, and
            what it refuses with an `InboxError` it refuses before it has written anything.
        row: What puts operations in one order in every process, so that two batches cannot wait for each other.
        undo: See `InboxFuture`.
        bounded: Whether it is refused when too many wait: as new work is, and the end of old work is not.
        known: Looks for an answer that needs no write, ``connection -> answer or None``: asked when the disk is full.
    """

    __slots__ = ("_apply", "bounded", "known", "row")

    def __init__(
        self,
        apply: Callable[[Connection, int], T],
        row: tuple[Any, ...] = (),
        undo: Callable[[T], None] | None = None,
        *,
        bounded: bool = False,
        known: Callable[[Connection], T | None] | None = None,
    ) -> None:
        super().__init__(undo)
        self._apply = apply
        self.row: tuple[Any, ...] = row
        self.bounded: bool = bounded
        self.known: Callable[[Connection], T | None] | None = known

    def apply(self, connection: Connection, now: int) -> T:
        """Do it."""
        return self._apply(connection, now)


class RowOperation(Operation[T]):
    """A statement that changes one row. Those with the same statement are executed together.

    Args:
        statement: SQL as the driver takes it, with named parameters.
        parameters: Makes them, of now in milliseconds.
        changed: The answer when it changed its row.
        unchanged: Gives the answer when it changed nothing, or raises.
        row: Which row, for the order in a batch.
        bounded: As for any operation.
        known: As for any operation.
    """

    __slots__ = ("changed", "parameters", "statement", "unchanged")

    def __init__(  # noqa: PLR0913 - the parts of a statement that changes one row
        self,
        statement: str,
        parameters: Callable[[int], Mapping[str, object]],
        *,
        changed: T,
        unchanged: Callable[[], T],
        row: tuple[Any, ...],
        bounded: bool = False,
        known: Callable[[Connection], T | None] | None = None,
    ) -> None:
        InboxFuture.__init__(self)  # pyright: ignore[reportUnknownMemberType] - apply is a method here
        self.statement: str = statement
        self.parameters: Callable[[int], Mapping[str, object]] = parameters
        self.changed: T = changed
        self.unchanged: Callable[[], T] = unchanged
        self.row: tuple[Any, ...] = row
        self.bounded: bool = bounded
        self.known: Callable[[Connection], T | None] | None = known

    def apply(self, connection: Connection, now: int) -> T:
        """Execute the statement for this row alone."""
        result = connection.exec_driver_sql(self.statement, self.parameters(now), execution_options=_KEEP_ROW_COUNT)
        return self.changed if result.rowcount else self.unchanged()


class GrantingOperation(Operation[T]):
    """An operation that grants claims.

    Args:
        apply: As for any operation.
        granted: Called with the answer after the commit, before anybody sees it.
        undo: As for any operation.
        row: As for any operation.
        bounded: As for any operation.
        known: As for any operation.
    """

    __slots__ = ("_granted",)

    def __init__(  # noqa: PLR0913 - an operation's, and one more
        self,
        apply: Callable[[Connection, int], T],
        granted: Callable[[T], None],
        undo: Callable[[T], None] | None = None,
        *,
        row: tuple[Any, ...] = (),
        bounded: bool = False,
        known: Callable[[Connection], T | None] | None = None,
    ) -> None:
        super().__init__(apply, row, undo, bounded=bounded, known=known)
        self._granted = granted

    def answer(self, value: T) -> None:
        """Take note of what is granted, and give the answer."""
        if not isinstance(value, BaseException):
            self._granted(value)
        super().answer(value)


class _NotAllChanged(Undo):
    """Some statement of a batch did not change all of its rows."""


class _Serving:
    """One life of the committer's thread.

    Attributes:
        began: When the transaction began that it is in, monotonic seconds; ``None`` between two.
        thread: The thread, once it has been started.
    """

    __slots__ = ("began", "thread")

    def __init__(self) -> None:
        self.began: float | None = None
        self.thread: threading.Thread | None = None

    def is_stuck(self, seconds: float) -> bool:
        """Return whether it has been in one transaction for longer."""
        return (began := self.began) is not None and monotonic() - began > seconds


class Committer:
    """Carries operations out, in batches.

    Args:
        store: Where.
        max_waiting: How many operations may wait; more are refused.
    """

    def __init__(self, store: Store, max_waiting: int) -> None:
        self._store = store
        self._max_waiting = max_waiting
        self._queue: queue.SimpleQueue[Operation[Any] | None] = queue.SimpleQueue()
        self._submitting = threading.Lock()
        self._serving: _Serving | None = None
        self._closed = False
        self._ending = False

    def submit(self, operation: Operation[T]) -> Operation[T]:
        """Have an operation carried out, and return it: it is its own answer.

        Raises:
            InboxFull: Too many are waiting.
            InboxUnavailable: The inbox has been closed, or the system grants no thread.
        """
        if operation.bounded and self._queue.qsize() >= self._max_waiting:
            message = f"{self._max_waiting} operations are waiting for the store already"
            raise InboxFull(message)
        with self._submitting:
            if self._closed and not self._is_served_here():  # which has something to undo
                message = "the inbox has been closed"
                raise InboxUnavailable(message)
            if self._serving is None or self._serving.is_stuck(STUCK):
                self._serving = self._started()
            self._queue.put(operation)
        return operation

    def _is_served_here(self) -> bool:
        return self._serving is not None and self._serving.thread is threading.current_thread()

    def _started(self) -> _Serving:
        serving = _Serving()
        thread = threading.Thread(target=self._serve, args=(serving,), name="roovet-webhooks-inbox", daemon=True)
        serving.thread = started(thread)
        return serving

    def close(self) -> None:
        """Carry out what was submitted, and stop. What is stuck is left behind, and what waits for it is refused."""
        with self._submitting:
            self._closed = True
            self._queue.put(None)
            serving = self._serving
        if serving is None or serving.thread is None:
            return
        while serving.thread.is_alive():
            if serving.is_stuck(STUCK_AT_THE_END):
                self._leave_behind()
                return
            serving.thread.join(_LOOK)

    def _leave_behind(self) -> None:
        waiting: list[Operation[Any]] = []
        with self._submitting:
            self._serving = None
            with suppress(queue.Empty):
                while True:
                    if (operation := self._queue.get_nowait()) is not None:
                        operation.answer(InboxUnavailable("the inbox was closed while its store did not answer"))
                        waiting.append(operation)
        InboxFuture.wake(waiting)

    def _serve(self, serving: _Serving) -> None:
        while batch := self._batch():
            serving.began = monotonic()
            if wanted := [operation for operation in batch if not operation.cancelled]:
                self.commit(wanted)
            # What is kept alive here would wait for the next delivery to be freed.
            del batch, wanted
            serving.began = None
            if self._is_replaced(serving):
                return

    def _is_replaced(self, serving: _Serving) -> bool:
        with self._submitting:
            return self._serving is not serving

    def _batch(self) -> list[Operation[Any]]:
        """Wait for an operation and return it with all that wait; after the end return what is left, and then none."""
        batch: list[Operation[Any]] = []
        while len(batch) < MAX_BATCH:
            try:
                operation = self._queue.get(block=not (batch or self._ending))
            except queue.Empty:
                break
            if operation is None:
                self._ending = True
            else:
                batch.append(operation)
        return batch

    def commit(self, batch: list[Operation[Any]]) -> None:
        """Carry out a batch and give its answers. Nothing is raised here."""
        batch.sort(key=_row_of)
        answers: list[Any]
        try:
            answers = self._tried(batch)
        except Conflict:
            answers = [self._alone(operation) for operation in batch]
        except DiskFull as error:
            answers = self._known(batch, error)
        except InboxUnavailable as error:
            # One for each: an error that several raise gathers the tracebacks of all.
            answers = [InboxUnavailable(str(error)) for _ in batch]
        except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            answers = [self._alone(operation) for operation in batch] if len(batch) > 1 else [error]
        for operation, answer in zip(batch, answers, strict=True):
            operation.answer(_unavailable(answer) if isinstance(answer, SQLAlchemyError) else answer)
        InboxFuture.wake(batch)

    def _known(self, batch: Sequence[Operation[Any]], full: DiskFull) -> list[Any]:
        """Answer what can be answered without a write: a copy of what is recorded is one on a full disk too."""
        found: list[Any] = [None] * len(batch)
        with suppress(InboxUnavailable), self._store.write() as (connection, _):
            found = [operation.known and operation.known(connection) for operation in batch]
        return [InboxUnavailable(str(full)) if answer is None else answer for answer in found]

    def _tried(self, batch: Sequence[Operation[Any]]) -> list[Any]:
        started = monotonic()
        try:
            return self._together(batch)
        except (_NotAllChanged, Conflict):
            return self._one_by_one(batch)
        except InboxUnavailable:
            # A connection that a restarted server has forgotten fails at once, and the next one works.
            if monotonic() - started > _AT_ONCE:
                raise
            return self._one_by_one(batch)

    def _together(self, batch: Sequence[Operation[Any]]) -> list[Any]:
        """Execute a statement once for all rows that follow each other; all of them change in nearly every batch."""
        answers: list[Any] = []
        with self._store.write() as (connection, now):
            # In the order of the rows, whatever is done to them: one that two batches do not share is no order.
            for statement, run in groupby(batch, key=_statement_of):
                operations: list[Any] = list(run)
                if statement is None:
                    answers += [_answer(operation, connection, now) for operation in operations]
                    continue
                rows = [operation.parameters(now) for operation in operations]
                result = connection.exec_driver_sql(statement, rows, execution_options=_KEEP_ROW_COUNT)
                if result.rowcount != len(rows):
                    raise _NotAllChanged
                answers += [operation.changed for operation in operations]
        return answers

    def _one_by_one(self, batch: Sequence[Operation[Any]]) -> list[Any]:
        with self._store.write() as (connection, now):
            return [_answer(operation, connection, now) for operation in batch]

    def _alone(self, operation: Operation[Any]) -> object:
        try:
            return self._one_by_one([operation])[0]
        except BaseException as error:  # noqa: BLE001 - somebody waits for it
            return error


def _row_of(operation: Operation[Any]) -> tuple[Any, ...]:
    return operation.row


def _statement_of(operation: Operation[Any]) -> str | None:
    return operation.statement if isinstance(operation, RowOperation) else None


def _answer(operation: Operation[T], connection: Connection, now: int) -> T | InboxError:
    """Return an operation's answer, or what it refuses with: that is no reason to undo what others did."""
    try:
        return operation.apply(connection, now)
    except InboxError as error:
        return error


def _unavailable(error: SQLAlchemyError) -> InboxUnavailable:
    # Its text may have the statement's parameters, and so the body.
    return InboxUnavailable(f"the store refused an operation: {type(getattr(error, 'orig', error)).__name__}")
