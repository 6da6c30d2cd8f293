"""`Worker`: runs what its receivers have recorded, until it is told to stop."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from roovet_webhooks import telemetry
from roovet_webhooks._validation import is_count, is_number
from roovet_webhooks.errors import ConfigurationError, InboxError
from roovet_webhooks.worker.bridge import WorkerBridge
from roovet_webhooks.worker.capacity import Capacity
from roovet_webhooks.worker.peers import Peers
from roovet_webhooks.worker.poller import Poller, WorkerContext
from roovet_webhooks.worker.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable

    from roovet_webhooks.inbox.protocol import DurableInbox, Served
    from roovet_webhooks.receiving.receiver import WebhookReceiver
    from roovet_webhooks.worker.bridge import Around

DEFAULT_CONCURRENCY = 16
DEFAULT_GRACE = 25.0
DEFAULT_POLL = 0.5
BEAT_EVERY = 15.0
# Seconds that giving back what is still held may take, once the grace is over.
_RELEASING = 5.0
# Seconds that telling a store of the end may take.
_RETIRING = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Worker:
    """Runs the deliveries that receivers have recorded in their durable inboxes.

    Start one in a process of its own (`run`, or the command ``roovet-webhooks worker``), on the event loop of a server
    (`working`), or in a thread (`start`). Any number of processes may work on the same inbox. Nothing starts before one
    of these is called, so that a worker may be made before a fork and started after it.

    Where a receiver has an engine, its deliveries are handed to it, and none is run here.

    Args:
        receivers: Whose deliveries it runs.
        concurrency: How many handlers run at a time.
        grace: Seconds that running handlers have to end once it has been told to stop. What still runs then is given
            back to the inbox, and that is not counted as a failure.
        poll: Seconds between two looks at an inbox in which nothing is due, at most.
        around: Makes a context manager that is entered for each call of a handler: Flask's ``app.app_context``.

    Raises:
        ConfigurationError: There is no receiver, one has no durable inbox, two are the same endpoint of one inbox, or a
            number is out of its range.

    Example::

        worker = Worker(receiver, concurrency=8)
        worker.run()
    """

    def __init__(
        self,
        *receivers: WebhookReceiver,
        concurrency: int = DEFAULT_CONCURRENCY,
        grace: float = DEFAULT_GRACE,
        poll: float = DEFAULT_POLL,
        around: Around | None = None,
    ) -> None:
        if strangers := [each for each in receivers if not hasattr(each, "inbox")]:
            message = f"a worker needs receivers, not {', '.join(type(each).__name__ for each in strangers)}"
            raise ConfigurationError(message)
        faults = [] if receivers else ["a worker needs a receiver"]
        faults += [
            f"the receiver {receiver.endpoint!r} keeps its deliveries in memory, where no worker finds them; give it a "
            "durable inbox: inbox='sqlite:///roovet.db'"
            for receiver in receivers
            if not receiver.inbox.durable
        ]
        durable = [receiver for receiver in receivers if receiver.inbox.durable]
        if len({(one.durable_inbox.location, one.endpoint) for one in durable}) < len(durable):
            faults.append(
                "two receivers have the same endpoint and the same inbox, so that each would take the other's "
                "deliveries; give each its own: endpoint='…'"
            )
        numbers = is_count(concurrency) and is_number(grace) and is_number(poll)
        if not (numbers and concurrency >= 1 and grace >= 0 and poll > 0):
            faults.append(
                "a worker needs a concurrency of 1 or more, a grace of 0 s or more and a poll of more than 0 s, not "
                f"{concurrency!r}, {grace!r} and {poll!r}"
            )
        if faults:
            raise ConfigurationError("; ".join(faults))
        self.receivers: tuple[WebhookReceiver, ...] = receivers
        self.concurrency: int = concurrency
        self.grace: float = grace
        self.poll: float = poll
        self._around = around
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def check(self) -> None:
        """Check that every receiver can handle what it has recorded. No signing secret is needed for it.

        Raises:
            ConfigurationError: One cannot.
        """
        for receiver in self.receivers:
            receiver.check_handlers()

    def run(self) -> None:
        """Work until told to stop. In the main thread, SIGTERM and SIGINT tell it; a second one ends the process.

        Raises:
            ConfigurationError: As `check`.
        """
        with self._told_by_signals():
            runner = asyncio.Runner()
            try:
                runner.run(self.serve())
            finally:
                # Where a task ignores its cancellation, closing would wait for it for ever.
                if runner.run(_end_tasks()):
                    runner.close()

    def start(self) -> None:
        """Work in a daemon thread: for a development server. At the end of the process it is told to stop.

        Raises:
            ConfigurationError: As `check`.
        """
        if self._thread is not None and self._pid == os.getpid() and self._thread.is_alive():
            return
        self.check()
        self._pid, self._stopped = os.getpid(), False
        thread = threading.Thread(target=self.run, name="roovet-webhooks-worker", daemon=True)
        thread.start()
        self._thread = thread
        atexit.register(self.close)

    def stop(self) -> None:
        """Tell it to stop: it claims no more, and ends when the running handlers have, or the grace is over.

        May be called from any thread.
        """
        self._stopped = True
        if self._loop is not None and self._stopping is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def close(self) -> None:
        """Stop what `start` started, and wait for it."""
        self.stop()
        atexit.unregister(self.close)
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join()

    async def serve(self) -> None:
        """Work on the running event loop until told to stop.

        Raises:
            ConfigurationError: As `check`.
        """
        bridge = WorkerBridge(self.concurrency, self._around)
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        if self._stopped:
            self._stopping.set()
        try:
            await bridge.to_inbox(self.check)
            await self._serve(bridge, self._stopping)
        finally:
            self._loop = self._stopping = None
            bridge.close()

    async def _serve(self, bridge: WorkerBridge, stopping: asyncio.Event) -> None:
        capacity = Capacity(self.concurrency, max(1, sum(receiver.engine is None for receiver in self.receivers)))
        worker = WorkerContext(capacity, bridge, self.poll, set(), set())
        endpoints = [receiver.endpoint for receiver in self.receivers]
        telemetry.log_event("worker.started", endpoints=endpoints, concurrency=self.concurrency)
        working = [asyncio.create_task(_part(receiver, worker).serve()) for receiver in self.receivers]
        heartbeats = [asyncio.create_task(self._send_heartbeats(bridge, *group)) for group in self._inboxes()]
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait([stop, *working, *heartbeats], return_when=asyncio.FIRST_COMPLETED)
        finally:
            deadline = monotonic() + self.grace
            telemetry.log_event("worker.stopping", running=len(worker.tasks), grace=self.grace)
            capacity.end()
            for task in (stop, *heartbeats):
                task.cancel()
            bridge.turn_away()
            await self._drain(worker, working, deadline)
            await self._retire(bridge)
        telemetry.log_event("worker.stopped", endpoints=endpoints, released=capacity.released)
        for task in (*working, *heartbeats):
            if task.done() and not task.cancelled():
                task.result()

    @staticmethod
    async def _drain(worker: WorkerContext, working: Iterable[asyncio.Task[None]], deadline: float) -> None:
        """Wait until everything has ended, and cancel deliveries that have not by then."""
        while (pending := _running(working, worker.tasks)) and monotonic() < deadline:
            await asyncio.wait(pending, timeout=deadline - monotonic(), return_when=asyncio.FIRST_COMPLETED)
        # A task that is cancelled before its first step would not give its claim back.
        await asyncio.sleep(0)
        for task in _running(worker.tasks):
            task.cancel()
        # The parts end by themselves, and give back what they may just be claiming.
        if pending := _running(working, worker.tasks):
            await asyncio.wait(pending, timeout=_RELEASING)
        worker.bridge.abandon()
        for task in _running(working, worker.tasks, worker.late):
            task.cancel()
        if pending := _running(worker.tasks):
            await asyncio.wait(pending, timeout=_RELEASING)

    def _inboxes(self) -> list[tuple[DurableInbox, list[Served]]]:
        grouped: dict[int, tuple[DurableInbox, list[Served]]] = {}
        for receiver in self.receivers:
            inbox = receiver.durable_inbox
            grouped.setdefault(id(inbox), (inbox, []))[1].append(receiver.served())
        return list(grouped.values())

    @staticmethod
    async def _send_heartbeats(bridge: WorkerBridge, inbox: DurableInbox, served: list[Served]) -> None:
        """Watch over an inbox's claims, and say now and then that its endpoints have a worker."""
        watching, peers = False, Peers(inbox.owner, served)
        while True:
            try:
                if not watching:
                    await bridge.to_inbox(inbox.start_maintenance)
                    watching = True
                await bridge.once(inbox, inbox.heartbeat, inbox.owner, served)
                peers.look(await bridge.once(inbox, inbox.workers))
            except InboxError:
                pass  # a poller of the same inbox has told it
            await asyncio.sleep(BEAT_EVERY if watching else 1.0)

    async def _retire(self, bridge: WorkerBridge) -> None:
        """Have the inboxes forget this worker, as far as they can at once; else its heartbeat grows old."""
        for inbox, served in self._inboxes():
            with suppress(InboxError, TimeoutError):
                async with asyncio.timeout(_RETIRING):
                    await bridge.once(inbox, inbox.retire, inbox.owner, [each.endpoint for each in served])

    @contextmanager
    def _told_by_signals(self) -> Generator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: object) -> None:
            # A second one ends the process there and then, whatever runs.
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            self.stop()

        before = {number: signal.signal(number, stop) for number in _SIGNALS}
        _handlers_before.append(before)
        try:
            yield
        finally:
            _handlers_before.remove(before)
            _restore(before)


# Signal handlers that workers of this process have replaced, the innermost last.
_handlers_before: list[dict[signal.Signals, Any]] = []


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _let_signals_end_child() -> None:  # pragma: no cover - in a child, which coverage does not see; tests fork
    """Undo the worker's signal handlers in a child that a handler has forked: they stop a worker that is not there."""
    while _handlers_before:
        _restore(_handlers_before.pop())


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_let_signals_end_child)


async def _end_tasks() -> bool:
    """Cancel what a handler has left on the worker's own event loop; return whether it has ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_RELEASING)
    return all(task.done() for task in others)


def _running(*groups: Iterable[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    return {task for group in groups for task in group if not task.done()}


def _part(receiver: WebhookReceiver, worker: WorkerContext) -> Poller | Relay:
    return Poller(receiver, worker) if receiver.engine is None else Relay(receiver, receiver.engine, worker)


def run_worker(*receivers: WebhookReceiver, **options: Any) -> None:  # noqa: ANN401 - the options of Worker
    """Run deliveries of receivers until told to stop; arguments, options and errors as `Worker` and `Worker.run`."""
    Worker(*receivers, **options).run()


@asynccontextmanager
async def working(*receivers: WebhookReceiver, **options: Any) -> AsyncGenerator[Worker]:  # noqa: ANN401 - Worker's
    """Run deliveries of receivers while a block runs, on the event loop that runs it: for a server's lifespan.

    Arguments and options as `Worker`. At the end of the block the worker is stopped and awaited.

    Raises:
        ConfigurationError: As `Worker` and `Worker.check`.

    Example::

        @asynccontextmanager
        async def lifespan(app):
            async with working(receiver):
                yield
    """
    worker = Worker(*receivers, **options)
    await asyncio.to_thread(worker.check)
    task = asyncio.create_task(worker.serve())
    task.add_done_callback(_told_of_failure)
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait([task])


def _told_of_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        telemetry.log_event("worker.failed", error)
