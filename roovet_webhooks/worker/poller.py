"""Takes the deliveries of one receiver from its inbox and has them handled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from roovet_webhooks import telemetry
from roovet_webhooks.errors import InboxError, InboxUnavailable
from roovet_webhooks.inbox.future import InboxFuture
from roovet_webhooks.receiving.attempt import ClaimReleased, log_context
from roovet_webhooks.signing.secrecy import forget_variables
from roovet_webhooks.worker.backoff import OutageBackoff

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from roovet_webhooks.inbox.protocol import Answer, Claim, Claimed
    from roovet_webhooks.receiving.receiver import WebhookReceiver
    from roovet_webhooks.worker.bridge import WorkerBridge
    from roovet_webhooks.worker.capacity import Capacity

SHORTEST_POLL = 0.05
LOOK_EVERY = 1.0
# Seconds for which suspects are run, one after the other, before the others have their turn again.
TURN = 1.0
# Seconds after which suspects are looked at again of which none could be had: others had them, or they wait for
# an earlier delivery of their resource.
NONE_TO_BE_HAD = 15.0


class WorkerContext(NamedTuple):
    """What the feeds of a worker share.

    Attributes:
        capacity: How much may be held.
        bridge: How handlers are called.
        poll: Seconds between two looks at an inbox in which nothing is due, at most.
        tasks: The deliveries that are being handled.
        late: Claims that nobody waited for any more, and that are given back should they have been made.
    """

    capacity: Capacity
    bridge: WorkerBridge
    poll: float
    tasks: set[asyncio.Task[None]]
    late: set[asyncio.Task[None]]

    @staticmethod
    def keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do work in a task that is not forgotten before it is done."""
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task


class Poller:
    """One receiver's part of a worker.

    Args:
        receiver: The receiver.
        worker: What it shares with the others.
    """

    def __init__(self, receiver: WebhookReceiver, worker: WorkerContext) -> None:
        self._receiver = receiver
        self._inbox = receiver.durable_inbox
        self._worker = worker
        self._capacity = worker.capacity
        self._outage = OutageBackoff("store", receiver.endpoint)
        self._look_at = 0.0

    async def serve(self) -> None:
        """Claim and start deliveries until the worker ends."""
        idle = SHORTEST_POLL
        while not self._capacity.ended:
            try:
                room, claimed = await self._claim()
                ran = await self._look_at_crashed()
            except InboxError as error:
                await self._capacity.pause(self._outage.failed(str(error)))
            else:
                self._outage.over()
                idle = SHORTEST_POLL if claimed or ran else idle
                if claimed < room and not ran:
                    await self._capacity.pause(idle)
                    idle = min(2 * idle, self._worker.poll)

    async def _claim(self) -> tuple[int, int]:
        """Claim what there is room for; return how much that was, and how many were claimed."""
        room = await self._capacity.take()
        if not room:
            return 0, 0
        claimed: Sequence[Claimed] = ()
        try:
            claimed = await self._claimed(
                lambda: self._inbox.claim(self._receiver.endpoint, limit=room, **self._order())
            )
        finally:
            self._capacity.give(room - len(claimed))
        for one in claimed:
            self._worker.keep(self._worker.tasks, self._handle(one))
        return room, len(claimed)

    def _order(self) -> Any:  # noqa: ANN401 - keyword arguments
        return {"ordering": self._receiver.ordering, "on_dead": self._receiver.on_dead}

    async def _claimed(self, claim: Callable[[], Answer[Sequence[Claimed]]]) -> Sequence[Claimed]:
        """Claim; what is claimed after nobody waits for it any more is given back."""
        pending: list[InboxFuture[Sequence[Claimed]]] = []

        def noted() -> Answer[Sequence[Claimed]]:
            answer = claim()
            if isinstance(answer, InboxFuture):
                pending.append(answer)
            return answer

        try:
            claimed = await self._worker.bridge.once(self._inbox, noted)
        except InboxUnavailable:
            for answer in pending:
                self._worker.keep(self._worker.late, self._give_back(answer))
            raise
        if self._capacity.ended:
            await self._release(claimed)
            return ()
        return claimed

    async def _give_back(self, answer: InboxFuture[Sequence[Claimed]]) -> None:
        with suppress(TimeoutError, InboxError):
            await self._release(await answer.wait(self._inbox.lease))

    async def _release(self, claimed: Sequence[Claimed]) -> None:
        wait, release = self._worker.bridge.wait, self._inbox.release

        async def release_one(claim: Claim) -> None:
            with self._inbox.renewing(claim):
                await wait(self._inbox, release, claim, retry_in=0.0)
            self._capacity.released += 1

        await asyncio.gather(*(release_one(one.claim) for one in claimed))

    async def _handle(self, claimed: Claimed) -> None:
        try:
            # From here on, so that a claim of which nothing comes is not renewed for ever.
            with self._inbox.renewing(claimed.claim):
                await self._receiver.handle(claimed, bridge=self._worker.bridge)
        except ClaimReleased:
            self._capacity.released += 1
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the worker
            # Its lease runs out, and that counts: what always ends like this ends dead.
            forget_variables(error)
            telemetry.log_event("worker.error", error, **log_context(claimed.delivery))
        finally:
            self._capacity.give(1, ended=1)

    # Suspects

    async def _look_at_crashed(self) -> bool:
        """Run deliveries that have crashed before, each with nothing beside it; then the others have as long a turn.

        Returns:
            Whether any ran.
        """
        began = monotonic()
        if began < self._look_at and not self._capacity.empty:
            return False
        self._look_at = began + LOOK_EVERY
        if not await self._worker.bridge.once(self._inbox, self._inbox.count_crashed, self._receiver.endpoint):
            return False
        async with self._capacity.alone() as alone:
            ran = alone and await self._run_crashed(monotonic() + TURN)
        now = monotonic()
        self._look_at = now + (max(LOOK_EVERY, now - began) if ran else NONE_TO_BE_HAD)
        return ran

    async def _run_crashed(self, until: float) -> bool:
        ran = False
        while not self._capacity.ended and monotonic() < until:
            claimed = await self._claimed(lambda: self._inbox.claim_isolated(self._receiver.endpoint, **self._order()))
            if not claimed:
                break
            ran = True
            self._capacity.give(-1)
            await asyncio.wait([self._worker.keep(self._worker.tasks, self._handle(claimed[0]))])
        return ran
