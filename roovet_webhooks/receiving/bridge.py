"""How the one life of a delivery runs in two worlds.

``receiver`` and ``dispatch`` are written once, as coroutines that reach the outside through a bridge only. In an
async server the event loop drives them. In a sync one `run` does: a `SyncBridge` never suspends, so that a
single step takes the coroutine to its end.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
import time
import types
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from roovet_webhooks import telemetry
from roovet_webhooks.errors import BodyTimeout, InboxUnavailable
from roovet_webhooks.handler_types import innermost
from roovet_webhooks.inbox.future import InboxFuture
from roovet_webhooks.inbox.threads import kind_of_threads

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from roovet_webhooks.inbox.protocol import Answer, Inbox
    from roovet_webhooks.messages import Body

T = TypeVar("T")
P = ParamSpec("P")

Take = Callable[[bytes], None]
"""Takes the next chunk of a body."""

InThread = Callable[..., Awaitable[Any]]
"""Calls a sync function with its arguments in a thread, and awaits its result."""


class Bridge(Protocol):
    """What the life of a delivery asks of the world it runs in."""

    async def read(self, body: Body, take: Take, seconds: float) -> None:
        """Pass every chunk of a body to ``take``.

        Raises:
            BodyTimeout: It did not end within ``seconds``.
        """
        ...

    async def call(self, function: Callable[..., object], *arguments: object) -> object:
        """Call a function of the user's, sync or async, where it belongs.

        Raises:
            Exception: The function raised it.
            NotAnExceptionError: The function raised some other `BaseException`, which is the cause.
            SystemExit: The function raised it, or its server did to end the process.
            KeyboardInterrupt: As SystemExit.
            asyncio.CancelledError: The task is cancelled.
        """
        ...

    async def wait(self, inbox: Inbox, operation: Callable[P, Answer[T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Carry out an operation of the inbox, which may block, and wait for its answer.

        Raises:
            InboxUnavailable: It has not answered within the inbox's timeout.
        """
        ...

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function that blocks, from a coroutine handler."""
        ...

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry work to its end, even if whoever asked for it goes away."""
        ...


EXITS: tuple[type[BaseException], ...] = (SystemExit, KeyboardInterrupt)
"""What ends a program. It may come from a server, in the midst of a handler."""


class NotAnExceptionError(RuntimeError):
    """A function of the user's raised a `BaseException` that is no `Exception`: the cause.

    A panic of an extension module, a `GeneratorExit`, a group of such. It is a failure like any other; passed on as it
    is, it would escape those who handle exceptions, and end a thread or an event loop that others use.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"the function raised {type(error).__name__}")
        self.__cause__: BaseException | None = error


def run(work: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine whose bridge is a `SyncBridge` to its end."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    work.close()
    message = "the work suspended under a SyncBridge, which never does"
    raise RuntimeError(message)


def is_async(function: Callable[..., object]) -> bool:
    """Say whether calling a function gives a coroutine; looks through partials and callable objects."""
    try:
        return _known_async(function)
    except TypeError:  # an unhashable callable, such as an instance of a dataclass
        return _is_async(function)


def _is_async(function: Callable[..., object]) -> bool:
    inner = innermost(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004 - its kind matters, not whether it is there


_known_async = functools.lru_cache(maxsize=512)(_is_async)


def _plain(function: Callable[..., object], *arguments: object) -> object:
    """Call a function in a thread whose future cannot carry every exception, or not as what it is."""
    try:
        return function(*arguments)
    except StopIteration as error:
        # asyncio cannot carry it out of the thread: whoever waits would wait for ever.
        message = "the function raised StopIteration"
        raise RuntimeError(message) from error
    except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise NotAnExceptionError(error) from error


def _cancelled_itself() -> RuntimeError:
    return RuntimeError("the function ended in a cancellation of its own making")


async def _awaited(value: Awaitable[object]) -> object:
    return await value


def _never() -> bool:
    return False


@types.coroutine
def _driven(
    work: Coroutine[Any, Any, object], is_abandoned: Callable[[], bool] = _never
) -> Generator[Any, Any, object]:
    """Drive a coroutine of the user's, step by step, and report each step that blocks the event loop.

    Args:
        work: The coroutine.
        is_abandoned: Asked whenever the task is cancelled: whether to close the coroutine rather than to cancel it once
            more, because it has swallowed a cancellation before.

    Raises:
        NotAnExceptionError: It raised a `GeneratorExit` of its own making. What closes this generator closes it too.
    """
    step = functools.partial(work.send, None)
    while True:
        with telemetry.LoopStep():
            try:
                waited_for = step()
            except StopIteration as done:
                return done.value
            except GeneratorExit as error:
                raise NotAnExceptionError(error) from error
        try:
            step = functools.partial(work.send, (yield waited_for))
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            if is_abandoned():
                with suppress(RuntimeError):  # it ignores that it is closed
                    work.close()
                raise
            step = functools.partial(work.throw, error)


class SyncBridge:
    """Runs sync handlers in the calling thread, and async ones on one event loop that lives on.

    A client that a handler opened in that loop can so be used by the next one.
    """

    async def read(self, body: Body, take: Take, seconds: float) -> None:
        """Read a sync body; the clock is looked at between reads, the server's own timeout does the rest."""
        if isinstance(body, bytes):
            take(body)
            return
        if isinstance(body, AsyncIterable):
            message = "this body is async; use receive_async or open_async"
            raise TypeError(message)
        deadline = time.monotonic() + seconds
        for chunk in body:
            take(chunk)
            if time.monotonic() > deadline:
                raise body_timeout(seconds)

    async def call(self, function: Callable[..., object], *arguments: object) -> object:
        """Call a function; a coroutine runs on the long-lived loop while this thread waits."""
        try:
            if is_async(function):
                return _LOOP.run(function, *arguments)
            result = function(*arguments)
            return _LOOP.run(_awaited, result) if inspect.isawaitable(result) else result
        except (Exception, SystemExit, KeyboardInterrupt):
            raise
        except asyncio.CancelledError as error:
            raise _cancelled_itself() from error
        except BaseException as error:
            raise NotAnExceptionError(error) from error

    async def wait(
        self,
        inbox: Inbox,
        operation: Callable[P, Answer[T]],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        """Carry out an operation of the inbox."""
        answer = operation(*arguments, **options)
        if not isinstance(answer, InboxFuture):
            return answer
        try:
            return cast("InboxFuture[T]", answer).result(inbox.timeout)
        except TimeoutError:
            raise _no_answer(inbox) from None

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a worker thread of the loop on which coroutine handlers run."""
        return cast("T", await _in_worker_thread(_plain, function, *arguments))

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry on: nothing cancels a thread."""
        return await work


class AsyncBridge:
    """Runs async handlers on the server's event loop and sync ones in threads, so that none blocks it.

    Args:
        in_thread: How to call a sync function, ``await in_thread(function, *arguments)``; anyio's worker
            threads when ``None``.
        to_inbox: How to call an inbox that blocks; as ``in_thread`` when ``None``.
    """

    def __init__(self, in_thread: InThread | None = None, to_inbox: InThread | None = None) -> None:
        self._abandoning = False
        self._in_thread = in_thread or _in_worker_thread
        self._to_inbox = to_inbox or self._in_thread

    async def read(self, body: Body, take: Take, seconds: float) -> None:
        """Read a body, sync or async, within the timeout."""
        if isinstance(body, bytes):
            take(body)
        elif isinstance(body, AsyncIterable):
            try:
                await _within(seconds, _read_all(body, take))
            except TimeoutError:
                raise body_timeout(seconds) from None
        else:
            for chunk in body:
                take(chunk)

    async def call(self, function: Callable[..., object], *arguments: object) -> object:
        """Call a function: a coroutine here, anything else in a thread."""
        try:
            result = function(*arguments) if is_async(function) else await self._in_thread(_plain, function, *arguments)
            if not inspect.isawaitable(result):
                return result
            work = result if inspect.iscoroutine(result) else _awaited(result)
            return await _driven(work, self._is_abandoned)
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit):  # the last closes this coroutine
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _cancelled_itself() from error
        except BaseException as error:
            raise NotAnExceptionError(error) from error

    def _is_abandoned(self) -> bool:
        return self._abandoning

    async def wait(self, inbox: Inbox, operation: Callable[P, Answer[T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Carry out an operation of the inbox without blocking the loop."""
        if inbox.blocking:
            answer = await self._blocking(functools.partial(operation, *arguments, **options))
        else:
            answer = operation(*arguments, **options)
        if not isinstance(answer, InboxFuture):
            return answer
        try:
            return await cast("InboxFuture[T]", answer).wait(inbox.timeout)
        except TimeoutError:
            raise _no_answer(inbox) from None

    async def _blocking(self, operation: Callable[[], Answer[T]]) -> Answer[T]:
        """Call an inbox in a thread.

        Raises:
            InboxUnavailable: The system grants no thread, for now.
        """
        begun: list[bool] = []

        def call() -> Answer[T]:
            begun.append(True)
            return operation()

        try:
            return cast("Answer[T]", await self._to_inbox(call))
        except RuntimeError as error:
            if begun:
                raise
            message = f"no thread can be started: {error}"
            raise InboxUnavailable(message) from error

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a thread."""
        return cast("T", await self._in_thread(_plain, function, *arguments))

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work as a task of its own: a server that cancels the request does not cancel the work."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        task = loop.create_task(_carry(work, result))
        # The loop keeps weak references only; a task whose request has gone would be collected.
        _running.add(task)
        try:
            return await result
        finally:
            # Cancelled means that the request has gone, and the work has not.
            if task.done() or (result.done() and not result.cancelled()):
                _running.discard(task)
            else:
                task.add_done_callback(_running.discard)


def _no_answer(inbox: Inbox) -> InboxUnavailable:
    return InboxUnavailable(f"the inbox has not answered for {inbox.timeout:g} s")


_running: set[asyncio.Task[Any]] = set()


async def _carry(work: Coroutine[Any, Any, T], result: asyncio.Future[T]) -> None:
    """Do what `asyncio.shield` does, in half the time: this is on the path of every delivery."""
    try:
        value = await work
    except BaseException as error:
        if result.done():
            raise
        result.set_exception(error)
    else:
        if not result.done():
            result.set_result(value)


async def _read_all(body: AsyncIterable[bytes], take: Take) -> None:
    async for chunk in body:
        take(chunk)


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Await work under a timeout, and set the timer only when the work has to wait.

    A body that has arrived with its headers, as nearly every delivery's has, needs no timer, and setting one
    costs more than verifying the delivery does. The timer is asyncio's: a cancel scope of anyio's would be
    entered inside those that the work, a middleware's `receive` for one, holds open where it waits.
    """
    try:
        waited_for = work.send(None)
    except StopIteration:
        return
    async with asyncio.timeout(seconds):
        await _resumed(work, waited_for)


@types.coroutine
def _resumed(work: Coroutine[Any, Any, None], waited_for: object) -> Generator[Any, Any, None]:
    """Carry on with work that waits already."""
    while True:
        try:
            sent = yield waited_for
        except BaseException as error:  # noqa: BLE001 - thrown in by the event loop, and passed on
            step = functools.partial(work.throw, error)
        else:
            step = functools.partial(work.send, sent)
        try:
            waited_for = step()
        except StopIteration:
            return


async def _in_worker_thread(function: Callable[..., object], *arguments: object) -> object:
    from anyio.to_thread import run_sync  # noqa: PLC0415 - nothing sync needs it

    return await run_sync(function, *arguments)


def body_timeout(seconds: float) -> BodyTimeout:
    """Return the error for a body that did not end in time."""
    message = (
        f"the body had not ended after {seconds:g} s: the sender stalled, or a middleware in front consumed "
        "the body without passing it on"
    )
    return BodyTimeout(message, timeout=seconds)


async def _outcome(
    function: Callable[..., Awaitable[object]], *arguments: object
) -> tuple[object, BaseException | None]:
    """Return what a coroutine function raises, so that its SystemExit does not end the loop under all the others."""
    try:
        return await _driven(_awaited(function(*arguments))), None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
        return None, error


class _LoopThread:
    """One event loop in one daemon thread, started at first use and once more in a forked child."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the loop; the next use starts another."""
        self._kind = kind_of_threads()
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[..., object], *arguments: object) -> object:
        """Run a coroutine function on the loop, in the caller's context, and wait for its result."""
        portal = self._started()
        if threading.current_thread() is self._thread:
            message = (
                "a sync call of the receiver from one of its own async handlers would wait for itself; "
                "use receive_async there"
            )
            raise RuntimeError(message)
        result, error = portal.call(_outcome, cast("Callable[..., Awaitable[object]]", function), *arguments)
        if error is not None:
            raise error
        return result

    def _started(self) -> BlockingPortal:
        if self._kind is not kind_of_threads():
            self.reset()
        with self._lock:
            if self._portal is None or self._thread is None or not self._thread.is_alive():
                ready: Future[BlockingPortal] = Future()
                thread = threading.Thread(target=self._serve, args=(ready,), name="roovet-webhooks-loop", daemon=True)
                thread.start()
                # Remembered together, once there is a loop: a thread or a file may be refused.
                self._portal, self._thread = ready.result(), thread
            return self._portal

    def _serve(self, ready: Future[BlockingPortal]) -> None:
        try:
            asyncio.run(self._open_portal(ready))
        except Exception as error:  # noqa: BLE001 - passed on to whoever waits for the loop
            # There is none where no more files may be opened, for one.
            ready.set_exception(error)

    async def _open_portal(self, ready: Future[BlockingPortal]) -> None:
        from anyio.from_thread import BlockingPortal  # noqa: PLC0415 - nothing else needs it

        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()


_LOOP = _LoopThread()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    # The child has neither the thread nor whoever held the lock.
    os.register_at_fork(after_in_child=_LOOP.reset)
