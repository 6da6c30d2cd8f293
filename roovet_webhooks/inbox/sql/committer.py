"""Group commit: whatever is asked for while one transaction is being written to disk shares the next.

One thread, one connection. A caller gets an answer that is given after the commit and not before. A batch that
fails is carried out again piece by piece, so that one operation cannot take others with it.
"""

from __future__ import annotations

import threading
from itertools import groupby
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from roovet_webhooks.errors import InboxError, InboxFull, InboxUnavailable
from roovet_webhooks.inbox.pending import Pending
from roovet_webhooks.inbox.sql.store import Conflict, Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from roovet_webhooks.inbox.sql.store import Store

T = TypeVar("T")

MAX_BATCH = 256
_AT_ONCE = 1.0  # seconds
_COUNTED: Any = {"preserve_rowcount": True}


class Operation(Pending[T]):
    """Something to be done in a transaction that others share.

    Args:
        apply: Does it, ``(connection, now in milliseconds) -> answer``. It may be called again after a rollback, and
            what it refuses with an `InboxError` it refuses before it has written anything.
        row: What puts operations in one order in every process, so that two batches cannot wait for each other.
        undo: See `Pending`.
        bounded: Whether it is refused when too many wait: as new work is, and the end of old work is not.
    """

    __slots__ = ("_apply", "bounded", "row")

    def __init__(
        self,
        apply: Callable[[Connection, int], T],
        row: tuple[Any, ...] = (),
        undo: Callable[[T], None] | None = None,
        *,
        bounded: bool = False,
    ) -> None:
        super().__init__(undo)
        self._apply = apply
        self.row: tuple[Any, ...] = row
        self.bounded: bool = bounded

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
    ) -> None:
        Pending.__init__(self)  # pyright: ignore[reportUnknownMemberType] - apply is a method here
        self.statement: str = statement
        self.parameters: Callable[[int], Mapping[str, object]] = parameters
        self.changed: T = changed
        self.unchanged: Callable[[], T] = unchanged
        self.row: tuple[Any, ...] = row
        self.bounded: bool = bounded

    def apply(self, connection: Connection, now: int) -> T:
        """Execute the statement for this row alone."""
        result = connection.exec_driver_sql(self.statement, self.parameters(now), execution_options=_COUNTED)
        return self.changed if result.rowcount else self.unchanged()


class _NotAllChanged(Undo):
    """Some statement of a batch did not change all of its rows."""


class Committer:
    """Carries operations out, in batches.

    Args:
        store: Where.
        max_waiting: How many operations may wait; more are refused.
    """

    def __init__(self, store: Store, max_waiting: int) -> None:
        self._store = store
        self._max_waiting = max_waiting
        self._queue: SimpleQueue[Operation[Any] | None] = SimpleQueue()
        self._submitting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._ending = False

    def submit(self, operation: Operation[T]) -> Operation[T]:
        """Have an operation carried out, and return it: it is its own answer.

        Raises:
            InboxFull: Too many are waiting.
            InboxUnavailable: The inbox has been closed.
        """
        if operation.bounded and self._queue.qsize() >= self._max_waiting:
            message = f"{self._max_waiting} operations are waiting for the store already"
            raise InboxFull(message)
        with self._submitting:
            if self._closed and threading.current_thread() is not self._thread:  # which has something to undo
                message = "the inbox has been closed"
                raise InboxUnavailable(message)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="roovet-webhooks-inbox", daemon=True)
                self._thread.start()
            self._queue.put(operation)
        return operation

    def close(self) -> None:
        """Carry out what was submitted, and stop."""
        with self._submitting:
            self._closed = True
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        while batch := self._batch():
            if wanted := [operation for operation in batch if not operation.cancelled]:
                self.commit(wanted)
            # What is kept alive here would wait for the next delivery to be freed.
            del batch, wanted

    def _batch(self) -> list[Operation[Any]]:
        """Wait for an operation and return it with all that wait; after the end return what is left, and then none."""
        batch: list[Operation[Any]] = []
        while len(batch) < MAX_BATCH:
            try:
                operation = self._queue.get(block=not (batch or self._ending))
            except Empty:
                break
            if operation is None:
                self._ending = True
            else:
                batch.append(operation)
        return batch

    def commit(self, batch: list[Operation[Any]]) -> None:
        """Carry out a batch and give its answers. Nothing is raised here."""
        batch.sort(key=_row_of)
        try:
            answers = self._tried(batch)
        except Conflict:
            answers = [self._alone(operation) for operation in batch]
        except InboxUnavailable as error:
            # One for each: an error that several raise gathers the tracebacks of all.
            answers = [InboxUnavailable(str(error)) for _ in batch]
        except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            answers = [self._alone(operation) for operation in batch] if len(batch) > 1 else [error]
        for operation, answer in zip(batch, answers, strict=True):
            operation.answer(_told(answer) if isinstance(answer, SQLAlchemyError) else answer)
        Pending.wake(batch)

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
                result = connection.exec_driver_sql(statement, rows, execution_options=_COUNTED)
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


def _told(error: SQLAlchemyError) -> InboxUnavailable:
    # Its text may have the statement's parameters, and so the body.
    return InboxUnavailable(f"the store refused an operation: {type(getattr(error, 'orig', error)).__name__}")
