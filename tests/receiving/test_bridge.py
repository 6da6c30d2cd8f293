"""Sync and async meet: where handlers run, what they can see, and that work once begun goes on."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import select
import signal
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from support import NOW, SECRET, request_of

from roovet_webhooks import Event, WebhookReceiver
from roovet_webhooks.receiving.bridge import SyncBridge, is_async, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

shop_variable: contextvars.ContextVar[str] = contextvars.ContextVar("shop", default="none")


def receiver_of(*handlers: Callable[..., object]) -> WebhookReceiver:
    receiver = WebhookReceiver(SECRET, clock=lambda: NOW)
    for number, handler in enumerate(handlers):
        receiver.on("*", name=f"handler-{number}")(handler)
    return receiver


def sync(event: Event) -> None: ...


async def coroutine(event: Event) -> None: ...


class Callables:
    def sync(self, event: Event) -> None: ...

    async def coroutine(self, event: Event) -> None: ...

    async def __call__(self, event: Event) -> None: ...


@dataclass
class Unhashable:
    """A dataclass that can be compared cannot be hashed."""

    handled: list[Event]

    def __call__(self, event: Event) -> None:
        self.handled.append(event)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (sync, False),
        (coroutine, True),
        (functools.partial(coroutine), True),
        (functools.partial(functools.partial(sync)), False),
        (Callables().sync, False),
        (Callables().coroutine, True),
        (Callables(), True),
        (functools.partial(Callables()), True),
        (Unhashable([]), False),
        (print, False),
    ],
    ids=[
        "function",
        "coroutine function",
        "partial",
        "nested partial",
        "method",
        "coroutine method",
        "callable object",
        "partial of an object",
        "unhashable",
        "builtin",
    ],
)
def test_is_async(function: Callable[..., object], expected: bool) -> None:  # noqa: FBT001 - a case
    assert is_async(function) is expected


def test_an_unhashable_callable_is_a_handler() -> None:
    handler = Unhashable([])
    receiver = receiver_of(handler)
    assert receiver.receive(request_of()).status == 200
    assert asyncio.run(receiver.receive_async(request_of())).status == 200
    assert len(handler.handled) == 2


def test_work_that_suspends_under_a_sync_bridge_is_a_fault_of_ours() -> None:
    async def suspends() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="suspended under a SyncBridge"):
        run(suspends())


def test_a_result_comes_back() -> None:
    async def work() -> int:
        return 5

    assert run(SyncBridge().finish(work())) == 5


class TestWhereHandlersRun:
    def test_a_sync_handler_under_receive_runs_in_the_calling_thread(self) -> None:
        threads: list[int] = []
        receiver_of(lambda _event: threads.append(threading.get_ident())).receive(request_of())
        assert threads == [threading.get_ident()]

    def test_a_sync_handler_under_receive_async_runs_in_a_thread(self) -> None:
        threads: list[int] = []
        receiver = receiver_of(lambda _event: threads.append(threading.get_ident()))
        assert asyncio.run(receiver.receive_async(request_of())).status == 200
        assert len(threads) == 1
        assert threads != [threading.get_ident()]

    def test_a_sync_handler_never_blocks_the_loop(self) -> None:
        async def scenario() -> int:
            loop = asyncio.get_running_loop()
            passed = threading.Event()

            def waits(_event: Event) -> None:
                # Only a loop that goes on can set it.
                loop.call_soon_threadsafe(passed.set)
                assert passed.wait(30)

            return (await receiver_of(waits).receive_async(request_of())).status

        assert asyncio.run(scenario()) == 200

    def test_an_async_handler_under_receive_async_runs_on_the_servers_loop(self) -> None:
        loops: list[object] = []

        async def handler(_event: Event) -> None:
            await asyncio.sleep(0)
            loops.append(asyncio.get_running_loop())

        async def scenario() -> object:
            await receiver_of(handler).receive_async(request_of())
            return asyncio.get_running_loop()

        loop = asyncio.run(scenario())
        assert loops == [loop]

    def test_async_handlers_under_receive_share_one_loop_that_lives_on(self) -> None:
        loops: list[asyncio.AbstractEventLoop] = []

        async def handler(_event: Event) -> None:
            await asyncio.sleep(0)
            loops.append(asyncio.get_running_loop())

        receiver = receiver_of(handler)
        for _ in range(2):
            assert receiver.receive(request_of()).status == 200
        other = threading.Thread(target=lambda: receiver.receive(request_of()))
        other.start()
        other.join(30)
        assert len(loops) == 3
        assert loops[0] is loops[1] is loops[2]
        assert loops[0].is_running()

    def test_a_sync_function_that_returns_a_coroutine(self) -> None:
        handled: list[Event] = []

        async def inner(event: Event) -> None:
            await asyncio.sleep(0)
            handled.append(event)

        def outer(event: Event) -> Awaitable[None]:
            return inner(event)

        receiver = receiver_of(outer)
        assert receiver.receive(request_of()).status == 200
        assert asyncio.run(receiver.receive_async(request_of())).status == 200
        assert len(handled) == 2

    def test_a_sync_call_from_an_async_handler_of_ours_would_wait_for_itself(self) -> None:
        inner = receiver_of(coroutine)

        async def handler(_event: Event) -> None:
            assert inner.receive(request_of()).status == 500

        assert receiver_of(handler).receive(request_of()).status == 200

    @pytest.mark.parametrize("stop", [StopIteration, StopAsyncIteration, GeneratorExit])
    def test_an_exception_that_iteration_uses_is_a_failure(self, stop: type[BaseException]) -> None:
        def handler(_event: Event) -> None:
            raise stop

        receiver = receiver_of(handler)
        assert receiver.receive(request_of()).status == 500
        assert asyncio.run(receiver.receive_async(request_of())).status == 500


class TestContext:
    @pytest.mark.parametrize("handler_is_async", [True, False])
    @pytest.mark.parametrize("server_is_async", [True, False])
    def test_context_variables_reach_the_handler(
        self,
        handler_is_async: bool,  # noqa: FBT001 - a case
        server_is_async: bool,  # noqa: FBT001 - a case
    ) -> None:
        seen: list[str] = []

        def handler(_event: Event) -> None:
            seen.append(shop_variable.get())

        async def async_handler(event: Event) -> None:
            await asyncio.sleep(0)
            handler(event)

        receiver = receiver_of(async_handler if handler_is_async else handler)

        def serve() -> None:
            shop_variable.set("acme")
            if server_is_async:
                asyncio.run(receiver.receive_async(request_of()))
            else:
                receiver.receive(request_of())

        contextvars.copy_context().run(serve)
        receiver.receive(request_of())
        assert seen == ["acme", "none"]


class TestFork:
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_forked_child_has_a_loop_of_its_own(self) -> None:
        loops: list[int] = []

        async def handler(_event: Event) -> None:
            await asyncio.sleep(0)
            loops.append(threading.get_native_id())

        receiver = receiver_of(handler)
        assert receiver.receive(request_of()).status == 200
        after, before = os.pipe()
        with warnings.catch_warnings():
            # From Python 3.12 on a fork beside threads warns; that it works is the case.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            answer = b"failed"
            try:
                status = receiver.receive(request_of()).status
                answer = b"%d %d" % (status, loops[-1] != loops[0])
            finally:
                os.write(before, answer)
                os._exit(0)
        try:
            ready, _, _ = select.select([after], [], [], 60)
            assert ready, "the child hangs"
            assert os.read(after, 100) == b"200 1"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(after)
            os.close(before)
        # The parent's loop is as it was.
        assert receiver.receive(request_of()).status == 200
        assert loops == [loops[0]] * 2


class TestCancellation:
    @pytest.mark.parametrize("handler_is_async", [True, False])
    def test_a_client_that_goes_away_does_not_cancel_what_has_begun(self, handler_is_async: bool) -> None:  # noqa: FBT001 - a case
        async def scenario() -> tuple[list[str], int]:
            loop = asyncio.get_running_loop()
            begun, ended = asyncio.Event(), asyncio.Event()
            go, go_in_thread = asyncio.Event(), threading.Event()
            steps: list[str] = []

            async def handler(_event: Event) -> None:
                begun.set()
                await go.wait()
                steps.append("first")

            def sync_handler(_event: Event) -> None:
                loop.call_soon_threadsafe(begun.set)
                assert go_in_thread.wait(30)
                steps.append("first")

            def after(_event: Event) -> None:
                steps.append("second")
                loop.call_soon_threadsafe(ended.set)

            receiver = receiver_of(handler if handler_is_async else sync_handler, after)
            request = request_of()
            serving = asyncio.create_task(receiver.receive_async(request))
            await asyncio.wait_for(begun.wait(), 30)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            # Nobody but the package holds the work now.
            del serving
            gc.collect()
            go.set()
            go_in_thread.set()
            await asyncio.wait_for(ended.wait(), 30)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait_for(asyncio.gather(*(task for task in others if task is not None)), 30)
            return steps, (await receiver.receive_async(request)).status

        steps, status = asyncio.run(scenario())
        assert steps == ["first", "second"]
        assert status == 200

    def test_work_that_only_the_package_holds_is_not_collected(self) -> None:
        async def scenario() -> list[str]:
            begun = asyncio.Event()
            steps: list[str] = []

            async def handler(_event: Event) -> None:
                begun.set()
                try:
                    # A future that nobody else knows of: what keeps the task is a reference of the package.
                    await asyncio.get_running_loop().create_future()
                finally:
                    steps.append("ended")

            receiver = receiver_of(handler)
            serving = asyncio.create_task(receiver.receive_async(request_of()))
            await asyncio.wait_for(begun.wait(), 30)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            del serving
            for _ in range(3):
                await asyncio.sleep(0)
                gc.collect()
            return list(steps)

        assert asyncio.run(scenario()) == []

    def test_a_request_cancelled_while_its_body_comes_begins_nothing(self) -> None:
        async def scenario() -> list[Event]:
            handled: list[Event] = []
            reading = asyncio.Event()

            async def stalls() -> Any:  # noqa: ANN401 - an async generator
                reading.set()
                await asyncio.Event().wait()
                yield b""

            receiver = receiver_of(handled.append)
            request = request_of()
            request.body = stalls()
            serving = asyncio.create_task(receiver.receive_async(request))
            await asyncio.wait_for(reading.wait(), 30)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            return handled

        assert asyncio.run(scenario()) == []

    @pytest.mark.parametrize("server_is_async", [True, False])
    def test_a_handler_that_ends_in_a_cancellation_of_its_own_has_failed(self, server_is_async: bool) -> None:  # noqa: FBT001 - a case
        async def handler(_event: Event) -> None:
            task = asyncio.create_task(asyncio.sleep(3600))
            task.cancel()
            await task

        receiver = receiver_of(handler)
        request = request_of()
        for _ in range(2):
            response = asyncio.run(receiver.receive_async(request)) if server_is_async else receiver.receive(request)
            assert response.status == 500

    def test_an_interrupted_handler_gives_its_claim_back(self) -> None:
        interrupt = [True]

        def handler(_event: Event) -> None:
            if interrupt.pop() if interrupt else False:
                raise KeyboardInterrupt

        receiver = receiver_of(handler)
        request = request_of()
        with pytest.raises(KeyboardInterrupt):
            receiver.receive(request)
        assert b"handled" in receiver.receive(request).body
