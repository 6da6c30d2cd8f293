"""What an engine's task does: claim one delivery by its number, and run it if it could be had."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from roovet_webhooks import telemetry
from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.receiving.attempt import log_context
from roovet_webhooks.receiving.bridge import EXITS, NotAnExceptionError, SyncBridge
from roovet_webhooks.signing.secrecy import forget_variables
from roovet_webhooks.worker.bridge import patiently

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from roovet_webhooks.inbox.protocol import Answer, Claimed, Inbox
    from roovet_webhooks.receiving.bridge import Bridge
    from roovet_webhooks.receiving.receiver import WebhookReceiver

    Isolation = Callable[[Claimed], AbstractAsyncContextManager[None]]

T = TypeVar("T")
P = ParamSpec("P")


class TaskBridge(SyncBridge):
    """Runs handlers in a task's own thread, with a worker's patience for a store that is away."""

    async def call(self, function: Callable[..., object], *arguments: object) -> object:
        """Call a handler; if it ends the program, that is its failure."""
        try:
            return await super().call(function, *arguments)
        except EXITS as error:
            raise NotAnExceptionError(error) from error

    async def wait(self, inbox: Inbox, operation: Callable[P, Answer[T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Carry out an operation of the inbox, as soon as the store can be used."""

        async def once() -> T:
            return await super(TaskBridge, self).wait(inbox, operation, *arguments, **options)

        return await patiently(once, _sleep)


async def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - under a SyncBridge, in a thread of its own


class Receivers:
    """The receivers of an engine, by endpoint: a task knows no more than the name of its own.

    Args:
        engine: Name of the engine.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._known: dict[str, WebhookReceiver] = {}

    def add(self, receiver: WebhookReceiver) -> None:
        """Take a receiver's deliveries.

        Raises:
            ConfigurationError: Another receiver has the endpoint, and a task says no more than that.
        """
        if self._known.setdefault(receiver.endpoint, receiver) is not receiver:
            message = (
                f"two receivers of the endpoint {receiver.endpoint!r} have one engine, whose tasks know no more of "
                "them; give each receiver its own: endpoint='…'"
            )
            raise ConfigurationError(message)

    async def run(
        self, endpoint: str, number: int, bridge: Bridge, isolation: Isolation = lambda _: nullcontext()
    ) -> None:
        """Run one delivery, if it is ready and due; whatever its handlers do, the task has done its work.

        Args:
            endpoint: Whose delivery.
            number: Which.
            bridge: How handlers are called.
            isolation: Gives a claimed delivery the company that it may have; any when ``None``.
        """
        receiver = self._known.get(endpoint)
        if receiver is None:
            # Left ready: a process that has the receiver will get it once more.
            telemetry.log_event("engine.unknown_endpoint", engine=self._engine, endpoint=endpoint, number=number)
            return
        inbox = receiver.durable_inbox
        claimed = await bridge.wait(
            inbox, inbox.claim_number, number, ordering=receiver.ordering, on_dead=receiver.on_dead
        )
        if claimed is None:
            return
        begun = False
        try:
            with inbox.renewing(claimed.claim):
                async with nullcontext() if isolation is None else isolation(claimed):
                    begun = True
                    await receiver.handle(claimed, bridge=bridge)
        except Exception as error:  # noqa: BLE001 - a fault of ours; the lease runs out, and that counts
            forget_variables(error)
            telemetry.log_event("engine.error", error, engine=self._engine, **log_context(claimed.delivery))
        except BaseException:
            if not begun:
                await bridge.wait(inbox, inbox.release, claimed.claim, retry_in=0.0)
            raise
