"""Hands the deliveries of one receiver to an engine: the only scheduler there is, and never on a request's path."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from roovet_webhooks import telemetry
from roovet_webhooks.errors import InboxError
from roovet_webhooks.worker.backoff import OutageBackoff
from roovet_webhooks.worker.poller import SHORTEST_POLL
from roovet_webhooks.worker.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roovet_webhooks.inbox.engine import Engine
    from roovet_webhooks.receiving.receiver import WebhookReceiver
    from roovet_webhooks.worker.poller import WorkerContext

_AT_ONCE = 100
# Seconds after which a broker that has not answered is given up, should the engine's own limits fail.
PATIENCE = 60.0


class _EngineError(Exception):
    """The engine could not take what was handed to it."""


class Relay:
    """One receiver's part of a worker, when an engine runs its deliveries.

    Args:
        receiver: The receiver.
        engine: Its engine.
        worker: What it shares with the other parts of the worker.
    """

    def __init__(self, receiver: WebhookReceiver, engine: Engine, worker: WorkerContext) -> None:
        self._receiver = receiver
        self._inbox = receiver.durable_inbox
        self._engine = engine
        self._worker = worker
        self._store = OutageBackoff("store", receiver.endpoint)
        self._broker = OutageBackoff("broker", receiver.endpoint)
        self._threads = Threads(1, "roovet-webhooks-relay")
        # Marked as handed over, and not known to have arrived; the mark's own end is what saves them if this is lost.
        self._unsent: list[int] = []

    async def serve(self) -> None:
        """Hand over what is due until the worker ends."""
        capacity = self._worker.capacity
        idle = SHORTEST_POLL
        while not capacity.ended:
            try:
                handed = await self._mark()
                self._store.over()
                await self._send()
            except InboxError as error:
                await capacity.pause(self._store.failed(str(error)))
            except _EngineError as error:
                await capacity.pause(self._broker.failed(str(error)))
            else:
                self._broker.over()
                if handed:
                    telemetry.log_event("worker.handed_over", count=handed, endpoint=self._receiver.endpoint)
                    idle = SHORTEST_POLL
                await capacity.pause(idle)
                idle = min(2 * idle, self._worker.poll)
        self._threads.close()

    async def _mark(self) -> int:
        if self._unsent:
            return 0
        receiver, engine = self._receiver, self._engine
        numbers = await self._worker.bridge.once(
            self._inbox,
            self._inbox.enqueue,
            receiver.endpoint,
            limit=engine.window,
            again_after=engine.again_after,
            ordering=receiver.ordering,
            on_dead=receiver.on_dead,
            with_each=self._enqueue if engine.shares_transaction else None,
        )
        if not engine.shares_transaction:
            self._unsent.extend(numbers)
        return len(numbers)

    async def _send(self) -> None:
        while self._unsent and not self._worker.capacity.ended:
            lot = self._unsent[:_AT_ONCE]
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._threads.call(self._enqueue, None, lot)
            except TimeoutError:
                # The thread waits on; the next try has one of its own.
                self._threads = Threads(1, "roovet-webhooks-relay")
                message = f"{self._engine.name} has not answered for {PATIENCE:g} s"
                raise _EngineError(message) from None
            del self._unsent[: len(lot)]

    def _enqueue(self, connection: Any, numbers: Sequence[int]) -> None:  # noqa: ANN401 - the store's
        try:
            self._engine.enqueue(connection, self._receiver.endpoint, numbers)
        except Exception as error:
            # Not its text: a broker's may have the URL, and so the password.
            message = f"{self._engine.name} does not take deliveries: {type(error).__name__}"
            raise _EngineError(message) from error
