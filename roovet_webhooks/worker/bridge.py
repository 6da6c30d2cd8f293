"""How a worker calls handlers: so many at a time, and with patience for a store that is away."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast
from weakref import WeakSet

from roovet_webhooks.errors import InboxFull, InboxUnavailable
from roovet_webhooks.receiving.bridge import EXITS, AsyncBridge, NotAnExceptionError, is_async
from roovet_webhooks.worker.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from roovet_webhooks.inbox.protocol import Answer, Inbox

    Around: TypeAlias = Callable[[], AbstractContextManager[Any]]

T = TypeVar("T")
P = ParamSpec("P")

_FIRST_WAIT = 0.25
_LONGEST_WAIT = 5.0
# Of an inbox whose calls block: it settles through these, however many handlers hold the others.
_INBOX_THREADS = 4


async def patiently(once: Callable[[], Awaitable[T]], sleep: Callable[[float], Awaitable[None]]) -> T:
    """Do something of an inbox as soon as its store can be used.

    What a handler did is lost when its end cannot be recorded, and the handler runs again. The claim is renewed all the
    while, so that it still holds when the store is back.
    """
    delay = _FIRST_WAIT
    while True:
        try:
            return await once()
        except (InboxUnavailable, InboxFull):
            await sleep(delay)
            delay = min(2 * delay, _LONGEST_WAIT)


def _within(around: Around, function: Callable[..., object], *arguments: object) -> object:
    with around():
        return function(*arguments)


class WorkerBridge(AsyncBridge):
    """Runs coroutine handlers on the worker's event loop and others in its threads.

    Args:
        concurrency: How many handlers run at a time, of both kinds together.
        around: Makes a context manager that is entered for each call.
    """

    def __init__(self, concurrency: int, around: Around | None = None) -> None:
        self._around: Around = around or nullcontext
        self._threads = Threads(concurrency, "roovet-webhooks-handler")
        self._inbox_threads = Threads(_INBOX_THREADS, "roovet-webhooks-store")
        super().__init__(self._threads.call, to_inbox=self._inbox_threads.call)
        self._slots = asyncio.Semaphore(concurrency)
        self._waiting: set[asyncio.Task[object]] = set()
        # Those that have had a slot: their other handlers and their hooks are not turned away.
        self._begun: WeakSet[asyncio.Task[object]] = WeakSet()
        self._turning_away = False

    async def call(self, function: Callable[..., object], *arguments: object) -> object:
        """Call a handler once there is a slot for it.

        Raises:
            NotAnExceptionError: It raised no `Exception`: that is its failure, and no reason for the worker to end.
        """
        await self._slot()
        try:
            if is_async(function):
                with self._around():
                    return await super().call(function, *arguments)
            return await super().call(partial(_within, self._around, function), *arguments)
        except EXITS as error:
            # No server is to end: a signal stops the worker in another way.
            raise NotAnExceptionError(error) from error
        finally:
            self._slots.release()

    async def _slot(self) -> None:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        if task in self._begun or not self._slots.locked():
            await self._slots.acquire()
        elif self._turning_away:
            raise asyncio.CancelledError
        else:
            self._waiting.add(task)
            try:
                await self._slots.acquire()
            finally:
                self._waiting.discard(task)
        self._begun.add(task)

    async def wait(self, inbox: Inbox, operation: Callable[P, Answer[T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Carry out an operation for a claim that is held, as soon as the store can be used."""

        async def once() -> T:
            return await self.once(inbox, operation, *arguments, **options)

        return await patiently(once, asyncio.sleep)

    async def once(self, inbox: Inbox, operation: Callable[P, Answer[T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Carry out an operation of the inbox, or raise what is wrong with it."""
        return await super().wait(inbox, operation, *arguments, **options)

    async def to_inbox(self, function: Callable[..., object]) -> None:
        """Call a function that waits for an inbox, in a thread."""
        await self._inbox_threads.call(function)

    def turn_away(self) -> int:
        """Cancel the deliveries of which no handler has had a slot, now and later; return how many wait now."""
        self._turning_away = True
        waiting = list(self._waiting)
        for task in waiting:
            task.cancel()
        return len(waiting)

    def abandon(self) -> None:
        """Close coroutine handlers that are cancelled from now on: they have swallowed a cancellation before."""
        self._abandoning = True

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()
        self._inbox_threads.close()
