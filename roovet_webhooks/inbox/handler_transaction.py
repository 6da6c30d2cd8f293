"""What ties a running handler to its inbox: the one transaction that it has for a delivery."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from roovet_webhooks.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from roovet_webhooks.inbox.protocol import Claim, DurableInbox, ImplicitTransaction

T = TypeVar("T")


class AfterCommit(Exception):
    """What a transaction did is there, and something raised after it: raised by an inbox, and meant for the scope.

    Attributes:
        error: What was raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class InThread(Protocol):
    """Calls a function that blocks, from a coroutine."""

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Call it in a thread."""
        ...


class HandlerScope:
    """The transaction of one handler at one delivery.

    Args:
        inbox: The inbox that holds the delivery.
        claim: The claim under which the handler runs.
        handler: Name of the handler.
        threads: How a coroutine handler calls a function that blocks.

    Attributes:
        committed: Whether the transaction, and with it the handler's success, has been committed.
    """

    __slots__ = (
        *("_block", "_claim", "_ended", "_handler", "_implicit_transaction", "_inbox", "_left", "_open", "_thread"),
        *("_threads", "_used", "committed"),
    )

    def __init__(self, inbox: DurableInbox, claim: Claim, handler: str, threads: InThread) -> None:
        self._inbox = inbox
        self._claim = claim
        self._handler = handler
        self._threads = threads
        self._implicit_transaction: ImplicitTransaction | None = None
        self._block = ExitStack()
        self._thread: int | None = None  # in which the block was opened
        self._open = False
        self._used = False
        self._left = False
        self._ended = False
        self.committed: bool = False

    @contextmanager
    def lifetime(self) -> Generator[None]:
        """Run the handler. When it has returned, what it was given is dead.

        Raises:
            ConfigurationError: It has left its transaction open, in another thread or in a block that nobody has left.
        """
        try:
            yield
        finally:
            self._ended = True
        self._check_left()

    def _check_left(self) -> None:
        if self._open or self._left:
            raise self._left_open()

    def _left_open(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self._handler} returned before its transaction had ended: leave the block, and wait for a thread "
            "that is in it"
        )

    def around(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return what a sync handler is called by: in its transaction, where the inbox opens one unasked."""
        implicit_transaction = self._inbox.implicit_transaction(self._claim, self._handler)

        def called(*arguments: object) -> object:
            try:
                return function(*arguments)
            finally:
                self._end_block()

        if implicit_transaction is None:
            return called

        def enclosed(*arguments: object) -> object:
            with self._committing(implicit_transaction) as opened:
                self._implicit_transaction = opened
                try:
                    result = called(*arguments)
                finally:
                    self._implicit_transaction = None
                if opened is not None:
                    self._check_left()
                    if inspect.isawaitable(result):
                        raise self._too_late(result)
            return result

        return enclosed

    def _end_block(self) -> None:
        """Undo what the handler has left open in its thread: it would hold locks, and be in the way of a retry."""
        if self._open and self._thread == threading.get_ident():
            error = self._left_open()
            self._block.__exit__(type(error), error, None)

    def _too_late(self, result: object) -> ConfigurationError:
        if inspect.iscoroutine(result):
            result.close()
        return ConfigurationError(
            f"{self._handler} is called like a function and returns an awaitable, whose work would begin after its "
            "transaction: make it a coroutine function"
        )

    @contextmanager
    def transaction(self) -> Generator[Any]:
        """Open it; see `Delivery.transaction`."""
        if _on_an_event_loop():
            message = (
                "a transaction would block the event loop, and what runs meanwhile would run in it: in a coroutine, "
                "await delivery.in_transaction(function)"
            )
            raise ConfigurationError(message)
        if self._ended:
            message = f"{self._handler} has returned, and what it was given has ended with it"
            raise ConfigurationError(message)
        if self._open or self._used or self.committed:
            message = f"{self._handler} has opened its transaction for this delivery; put all of its writes into one"
            raise ConfigurationError(message)
        if self._implicit_transaction is not None:
            opened = self._implicit_transaction.part()
        else:
            opened = self._committing(self._inbox.transaction(self._claim, self._handler))
        self._open, self._thread = True, threading.get_ident()
        try:
            with self._block as block:
                yield block.enter_context(opened)
                if self._ended:
                    message = f"{self._handler} returned before its transaction had ended, which is undone"
                    raise ConfigurationError(message)
        except GeneratorExit:
            self._left = True  # the block was never left, and the collector has found it
            raise
        finally:
            self._open = False
        self._used = True

    @contextmanager
    def _committing(self, transaction: AbstractContextManager[T]) -> Generator[T]:
        """Enter a transaction of the inbox's, and note that it has been committed."""
        try:
            with transaction as opened:
                yield opened
        except AfterCommit as after:
            self.committed = True
            raise after.error from after.error.__cause__
        self.committed = self.committed or opened is not None

    async def in_transaction(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in it, in a thread; see `Delivery.in_transaction`."""

        def work() -> T:
            with self.transaction() as connection:
                return function(connection, *arguments)

        return await self._threads.in_thread(work)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a transaction stays where it is.

        Raises:
            TypeError: Always.
        """
        message = "a delivery in the hands of its handler holds a transaction and cannot be pickled"
        raise TypeError(message)


def _on_an_event_loop() -> bool:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False
    # Under gevent all greenlets of a thread see the loop that one of them runs. asyncio's loop has noted which one runs
    # it; uvloop's has not, and does not run there.
    here = threading.get_ident()
    return getattr(loop, "_thread_id", here) == here
