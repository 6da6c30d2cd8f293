"""Threads for handlers: daemons, because a handler that never returns must not keep its process from ending."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from typing import TYPE_CHECKING, NamedTuple

from roovet_webhooks import telemetry
from roovet_webhooks.receiving.bridge import NotAnExceptionError

if TYPE_CHECKING:
    from collections.abc import Callable


_AGAIN_AFTER = 0.5  # seconds


class _Call(NamedTuple):
    answer: asyncio.Future[object]
    context: contextvars.Context
    function: Callable[..., object]
    arguments: tuple[object, ...]


class Threads:
    """Calls functions in threads, for the event loop on which it is used. They start as they are needed.

    Not the standard library's executor: the interpreter waits for its threads before it ends.

    Args:
        most: How many there may be; further calls wait for one.
        name: What they are called.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._started = 0
        self._busy = 0
        self._refused: asyncio.TimerHandle | None = None
        self._closed = False

    async def call(self, function: Callable[..., object], *arguments: object) -> object:
        """Call a function in a thread and in the caller's context; an awaitable when it is not awaited at once."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        self._busy += 1
        self._calls.put(_Call(answer, contextvars.copy_context(), function, arguments))
        if self._refused is None:
            self._start(loop)
        return await answer

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the threads that are needed. While the system grants none, calls wait: for one, or for a later try."""
        self._refused = None
        while self._started < min(self._busy, self._most) and not self._closed:
            thread = threading.Thread(target=self._serve, args=(loop,), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                telemetry.log_event("worker.no_thread", reason=f"{error}; {self._started} {self._name} threads run")
                self._refused = loop.call_later(_AGAIN_AFTER, self._start, loop)
                return
            self._started += 1

    def close(self) -> None:
        """Let the threads end, each once it has done what it does."""
        self._closed = True
        for _ in range(self._started):
            self._calls.put(None)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while (call := self._calls.get()) is not None:
            value: object = None
            fault: Exception | None = None
            try:
                value = call.context.run(call.function, *call.arguments)
            except Exception as error:  # noqa: BLE001 - passed on to whoever awaits it
                fault = error
            except BaseException as error:  # noqa: BLE001 - as a failure: it was to end this thread only
                fault = NotAnExceptionError(error)
            try:
                loop.call_soon_threadsafe(self._finish, call.answer, value, fault)
            except RuntimeError:
                return  # the loop has been closed: nobody waits any more
            del call, value, fault

    def _finish(self, answer: asyncio.Future[object], value: object, fault: Exception | None) -> None:
        self._busy -= 1
        if answer.done():
            return
        if fault is None:
            answer.set_result(value)
        else:
            answer.set_exception(fault)
