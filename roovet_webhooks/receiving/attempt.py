"""One attempt at a claimed delivery: run the handlers that want it, and settle the claim."""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from roovet_webhooks import telemetry
from roovet_webhooks.errors import (
    CommittedByHandler,
    DropDelivery,
    EventValidationError,
    HandlerFailed,
    HandlerMissing,
    InboxError,
    RetryLater,
)
from roovet_webhooks.inbox.handler_transaction import HandlerScope
from roovet_webhooks.inbox.history import summary
from roovet_webhooks.inbox.records import AttemptOutcome, RecordedAttempt, RecordedRun
from roovet_webhooks.inbox.states import Outcome
from roovet_webhooks.receiving.bridge import EXITS, NotAnExceptionError, is_async
from roovet_webhooks.receiving.unhandled import coverage
from roovet_webhooks.signing.secrecy import OUR_MODULES
from roovet_webhooks.tracebacks import message_of, short_traceback, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.inbox.protocol import Claimed, DurableInbox, Inbox
    from roovet_webhooks.inbox.records import RunOutcome
    from roovet_webhooks.messages import WebhookRequest, WebhookResponse
    from roovet_webhooks.receiving.bridge import Bridge
    from roovet_webhooks.receiving.unhandled import Coverage, UnhandledLog
    from roovet_webhooks.retry import RetryPolicy
    from roovet_webhooks.routing import Handler, Plan

# What a call goes through on its way into a thread or onto a loop.
_CARRIERS = (OUR_MODULES, "anyio.", "asgiref.", "asyncio.", "concurrent.")


class Observer(Protocol):
    """Is told what becomes of each request while it is given to `WebhookReceiver.override`: a test's record.

    It changes nothing, is called from any thread, and must not raise.
    """

    def on_answered(self, delivery: Delivery, response: WebhookResponse) -> None:
        """Take note of a verified delivery that went to the handlers, or would have: how it was answered."""
        ...

    def on_opened(self, delivery: Delivery) -> None:
        """Take note of a verified delivery that a guard passes on to a view."""
        ...

    def on_rejected(self, error: WebhookError, request: WebhookRequest) -> None:
        """Take note of a request that was refused."""
        ...


class ClaimReleased(asyncio.CancelledError):
    """The task was cancelled, and its claim is given back."""


class Attempt:
    """One run of a delivery's handlers, one after the other, which settles its claim in every case.

    Every handler runs, whatever another did: their successes are recorded one by one, and a retry runs only
    those that have not succeeded. Only `DropDelivery` ends the round early; it does not undo that an earlier
    handler failed or asked for a retry.

    In a durable inbox the policy says when the next attempt is, and when there is none any more. In memory it is the
    sender that tries again, and no delivery dies.

    Only a cancellation gives the claim back uncounted. Whatever else a handler raises counts as its failure, so that
    nothing runs for ever.

    Args:
        plan: Who wants which event.
        claimed: The delivery and its claim.
        context: The delivery's `log_context`, for the log events of each run.
        inbox: What the claim is of.
        bridge: How handlers are called.
        retry: When to try again.
        now: Unix seconds.
        unhandled: Logs what nothing here handles.

    Attributes:
        failure: How the attempt failed, once that is settled.
    """

    def __init__(  # noqa: PLR0913 - the parts of an attempt; none has a default
        self,
        plan: Plan,
        claimed: Claimed,
        *,
        context: Mapping[str, object],
        inbox: Inbox,
        bridge: Bridge,
        retry: RetryPolicy,
        now: float,
        unhandled: UnhandledLog,
    ) -> None:
        self._plan = plan
        self._delivery, self._claim = claimed
        self._context = context
        self._inbox = inbox
        self._bridge = bridge
        self._retry = retry
        self._now = now
        self._running: tuple[str, telemetry.HandlerRun] | None = None
        self._started = perf_counter()
        self._runs: list[RecordedRun] = []
        self.failure: HandlerFailed | None = None
        self._failed: list[str] = []  # which handlers
        self._unhandled = unhandled
        self._undecodable: list[str] = []
        self._later: RetryLater | None = None
        self._dropped = False
        self._is_final = False

    async def make(self) -> Outcome:
        """Run the handlers and settle the claim.

        Returns:
            How the delivery ended.

        Raises:
            HandlerFailed: A handler raised; the claim is given back and the failure counted, or the delivery is dead.
            RetryLater: No handler failed, but one asked for a later retry; the claim is given back.
            HandlerMissing: The delivery has a handler that this process has not; the claim is given back, or the
                delivery is dead.
            InboxError: The claim could not be settled, or is over, and no handler has run.
            ClaimReleased: The task was cancelled; the claim is given back.
            SystemExit: A handler raised it, or its server did to end the process; the failure is counted.
            KeyboardInterrupt: As SystemExit.
        """
        inbox, claim, wait = self._inbox, self._claim, self._bridge.wait
        event = self._delivery.event.event
        found = coverage(claim, self._plan.match(event))
        with inbox.renewing(claim) as is_sure:
            try:
                if not is_sure:
                    # It has waited for its turn so long that another process may have it by now.
                    await wait(inbox, inbox.confirm, claim)
                await self._run(found)
            except (asyncio.CancelledError, InboxError) as error:
                # Nobody's failure, so the delivery is free again.
                self._end_run("interrupted", error)
                released = await self._release()
                if released and isinstance(error, asyncio.CancelledError):
                    raise ClaimReleased from error
                raise
            except GeneratorExit:
                raise  # this coroutine is thrown away and may await nothing: the lease runs out, and that counts
            except BaseException as error:
                # A handler's own doing, or its server's because it took too long: it would end each process that tries.
                self._end_run("failed", error)
                with suppress(InboxError):
                    await self._settle_failure()
                raise
            if self._failed:
                raise await self._settle_failure()
            if self._later is not None:
                # A new one: what the handler raised may be an object that it raises again.
                raise await self._settle_postponement(self._later) from None
            if not (found.complete or self._dropped):
                raise await self._settle_missing(found)
            handled = Outcome.HANDLED if found.runs or claim.succeeded else Outcome.IGNORED
            outcome = Outcome.DROPPED if self._dropped else handled
            if outcome is Outcome.IGNORED:
                self._unhandled.ignored(event, self._plan, self._delivery.endpoint)
            await wait(inbox, inbox.complete, claim, outcome, attempt=self._ended(AttemptOutcome(outcome)))
            return outcome

    async def _release(self) -> bool:
        """Give the claim back; return whether that is recorded. If not, the reaper will free it."""
        try:
            attempt = self._ended(AttemptOutcome.RELEASED)
            await self._bridge.wait(self._inbox, self._inbox.release, self._claim, retry_in=0.0, attempt=attempt)
        except InboxError:
            return False
        return True

    async def _run(self, found: Coverage) -> None:
        # A single handler's success is recorded by the end of its delivery.
        several = len(found.runs) > 1 or not found.complete
        for handler, decode in found.runs:
            if self._dropped:
                break
            if handler.name in self._claim.succeeded:
                continue
            scope = self._scope(handler)
            run = telemetry.HandlerRun(handler.name, self._context)
            self._running = handler.name, run
            try:
                with run:
                    event = decode(self._delivery.raw, self._delivery.event)
                    arguments = (event, self._delivery.within(scope)) if handler.takes_delivery else (event,)
                    with nullcontext() if scope is None else scope.lifetime():
                        await self._bridge.call(self._callable(handler, scope), *arguments)
            except EXITS as error:
                telemetry.log_event("handler.failed", error, **run.fields)
                raise
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is its failure
                await self._take(error, handler, run.fields, committed=scope is not None and scope.committed)
            else:
                self._end_run("handled")
                if several and not (scope is not None and scope.committed):
                    await self._bridge.wait(self._inbox, self._inbox.succeed, self._claim, handler.name)

    def _scope(self, handler: Handler) -> HandlerScope | None:
        if not self._inbox.durable:
            return None
        return HandlerScope(cast("DurableInbox", self._inbox), self._claim, handler.name, self._bridge)

    @staticmethod
    def _callable(handler: Handler, scope: HandlerScope | None) -> Callable[..., object]:
        if is_async(handler.function):
            return handler.function  # it cannot run inside of a transaction: what it awaits runs elsewhere
        return _in_this_process(handler.function if scope is None else scope.around(handler.function))

    async def _take(self, error: Exception, handler: Handler, fields: Mapping[str, object], *, committed: bool) -> None:
        """Note what a handler raised, and tell it."""
        if isinstance(error, DropDelivery) and not committed:
            telemetry.log_event("handler.dropped", reason=str(error), **fields)
            self._end_run("dropped", error)
            self._dropped = True
            return
        if isinstance(error, RetryLater) and not committed:
            telemetry.log_event("handler.retry_later", reason=str(error), **fields)
            self._end_run("retry_later", error)
            self._later = _longer(self._later, error)
            return
        begin_with_users_code(error)
        if committed:
            # Its effects are there and its success is recorded: there is nothing that a retry could do.
            telemetry.log_event("handler.failed_after_commit", error, **fields)
            self._end_run("handled", error)
        else:
            self._end_run("failed", error)
            if isinstance(error, EventValidationError):
                self._undecodable.append(handler.name)
            self._is_final = self._is_final or isinstance(error, CommittedByHandler)
            telemetry.log_event("handler.failed", error, **fields)
        await call_hooks(self._plan.error_hooks, self._bridge, error, self._delivery)

    def _end_run(self, outcome: RunOutcome, error: BaseException | None = None) -> None:
        """Note how the run of a handler ended, for the history."""
        if self._running is None:
            return
        (name, run), self._running = self._running, None
        if isinstance(error, NotAnExceptionError):
            error = error.__cause__
        if outcome == "failed":
            self._failed.append(name)
        message = traceback = None
        if error is not None and self._inbox.durable:
            message = message_of(error, self._delivery.raw) or None
            traceback = None if isinstance(error, DropDelivery | RetryLater) else short_traceback(error) or None
        self._runs.append(
            RecordedRun(
                handler=name,
                outcome=outcome,
                duration=run.duration,
                error=None if error is None else type(error).__name__,
                message=message,
                traceback=traceback,
            )
        )

    def _ended(self, outcome: AttemptOutcome) -> RecordedAttempt:
        """Return what the attempt came to, for the history."""
        duration = round(perf_counter() - self._started, 6)
        return RecordedAttempt(number=self._claim.attempt, outcome=outcome, duration=duration, runs=tuple(self._runs))

    async def _settle_failure(self) -> HandlerFailed:
        """Settle the claim after a failure, and return what to raise."""
        inbox, claim = self._inbox, self._claim
        # Classes only: their messages may quote the body, which no log gets.
        message = summary("failed", self._runs, messages=False)
        attempt = self._ended(AttemptOutcome.FAILED)
        again: float | None = self._retry.delay(claim.attempt)
        outcome = Outcome.FAILED
        if inbox.durable:
            again = self._retry.after_failure(failures=claim.failures + 1, crashes=claim.crashes)
            if self._undecodable and len(self._undecodable) == len(self._failed) and self._later is None:
                # The bytes will be the same next time. A replay after the type has been mended runs them.
                again, outcome = None, Outcome.UNDECODABLE
        if self._is_final:
            again = None  # another attempt could not undo what was committed
        if again is None:
            await self._bridge.wait(inbox, inbox.bury, claim, "failed", outcome, attempt=attempt)
        else:
            await self._bridge.wait(inbox, inbox.fail, claim, "failed", retry_in=again, attempt=attempt)
        self.failure = HandlerFailed(message, handlers=self._failed, dead=again is None)
        return self.failure

    async def _settle_missing(self, found: Coverage) -> HandlerMissing:
        """Settle the claim on a delivery of which another process has to run a part, and return what to raise."""
        inbox, claim = cast("DurableInbox", self._inbox), self._claim
        self._unhandled.missing(found, self._context)
        attempt = msgspec.structs.replace(self._ended(AttemptOutcome.UNHANDLED), reason=shortened(found.reason))
        since = self._now if claim.unhandled_since is None else claim.unhandled_since
        after = self._retry.after_missing(age=self._now - since)
        if after is None:
            await self._bridge.wait(inbox, inbox.bury, claim, found.reason, Outcome.UNHANDLED, attempt=attempt)
        else:
            await self._bridge.wait(inbox, inbox.return_unhandled, claim, found.reason, retry_in=after, attempt=attempt)
        return HandlerMissing(found.reason, handlers=found.missing, after=after)

    async def _settle_postponement(self, later: RetryLater) -> RetryLater | HandlerFailed:
        """Settle the claim after a `RetryLater`, and return what to raise."""
        inbox, claim = self._inbox, self._claim
        attempt = self._ended(AttemptOutcome.RETRY_LATER)
        after = self._retry.delay(claim.attempt) if later.retry_after is None else later.retry_after
        came = claim.first_received_at
        age = self._now - (self._delivery.received_at if came is None else came)
        if inbox.durable and self._retry.after_postponement(age=age, after=after) is None:
            error = f"put off for longer than {self._retry.max_age:g} s"
            await self._bridge.wait(inbox, inbox.bury, claim, error, Outcome.POSTPONED, attempt=attempt)
            return HandlerFailed(f"{error}: {later}", handlers=[], dead=True)
        await self._bridge.wait(inbox, inbox.release, claim, retry_in=after, error="retry later", attempt=attempt)
        return RetryLater(after, str(later))


def _in_this_process(function: Callable[..., object]) -> Callable[..., object]:
    """Return a function that ends a child process which its fork has made, and which returns here.

    The child has a copy of one thread of the server or worker, and none of what that thread would return to.
    """

    def call(*arguments: object) -> object:
        pid = os.getpid()
        try:
            return function(*arguments)
        finally:
            if os.getpid() != pid:  # pragma: no cover - in a child, which coverage does not see; tests fork
                os.write(2, b"roovet_webhooks: a handler has forked, and its child returned from it: the child ends\n")
                os._exit(1)

    return call


def begin_with_users_code(error: BaseException) -> None:
    """Leave out of a traceback what stands before the user's code: our own frames, and those that carry a call.

    Their variables hold the event and the delivery, which a log that prints variables would show.
    """
    if error.__cause__ is not None:
        begin_with_users_code(error.__cause__)
    traceback = kept = error.__traceback__
    while traceback is not None and (module := _module_of(traceback)).startswith(_CARRIERS):
        traceback = traceback.tb_next
        if module.startswith(OUR_MODULES):
            kept = traceback
    # Where nothing is left, a carrier itself has failed, and its frames say how.
    error.__traceback__ = traceback or kept


def _module_of(traceback: TracebackType) -> str:
    return str(traceback.tb_frame.f_globals.get("__name__", ""))


def _longer(one: RetryLater | None, other: RetryLater) -> RetryLater:
    if one is None:
        return other
    return other if (other.retry_after or 0) > (one.retry_after or 0) else one


async def call_hooks(hooks: Sequence[Callable[..., object]], bridge: Bridge, *arguments: object) -> None:
    """Call hooks; one that raises is logged and changes nothing."""
    for hook in hooks:
        try:
            await bridge.call(hook, *arguments)
        except Exception as error:  # noqa: BLE001 - a hook must not change what becomes of a delivery
            begin_with_users_code(error)
            telemetry.log_event("hook.failed", error, hook=getattr(hook, "__qualname__", repr(hook)))


def log_context(delivery: Delivery) -> dict[str, object]:
    """Return what every log event about a delivery says of it."""
    return {
        "event_type": delivery.event.event,
        "resource": delivery.event.id,
        "delivery": delivery.id,
        "key": delivery.key,
        "endpoint": delivery.identity.endpoint,
        "tenant": delivery.identity.tenant,
        "secret": delivery.secret_name,
        "attempt": delivery.attempt,
    }
