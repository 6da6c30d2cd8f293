"""One attempt at a claimed delivery: run the handlers that want it, and settle the claim."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from roovet_webhooks import telemetry
from roovet_webhooks.errors import DropDelivery, HandlerFailed, RetryLater
from roovet_webhooks.inbox.protocol import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from roovet_webhooks.bridge import Bridge
    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.inbox.protocol import Claim, Inbox
    from roovet_webhooks.messages import WebhookRequest, WebhookResponse
    from roovet_webhooks.retry import RetryPolicy
    from roovet_webhooks.routing import Plan

_OURS = f"{__package__}."


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


async def attempt(  # noqa: PLR0913 - the parts of an attempt; none has a default
    plan: Plan, delivery: Delivery, claim: Claim, *, inbox: Inbox, bridge: Bridge, retry: RetryPolicy
) -> Outcome:
    """Run a delivery's handlers, one after the other, and settle its claim in every case.

    Every handler runs, whatever another did: their successes are recorded one by one, and a retry runs only
    those that have not succeeded. Only `DropDelivery` ends the round early; it does not undo that an earlier
    handler failed or asked for a retry.

    Returns:
        How the delivery ended.

    Raises:
        HandlerFailed: A handler raised; the claim is given back and the failure counted.
        RetryLater: No handler failed, but one asked for a later retry; the claim is given back.
        InboxError: The claim could not be settled.
    """
    try:
        outcome, failed, later = await _run_all(plan, delivery, claim, inbox, bridge)
    except BaseException:
        # Cancelled, or the process is told to stop: nobody's failure, so the delivery is free again.
        await bridge.wait(inbox, inbox.release, claim, retry_in=0.0)
        raise
    if outcome is not None:
        await bridge.wait(inbox, inbox.complete, claim, outcome)
        return outcome
    wait = retry.delay(claim.attempt)
    if failed:
        error = HandlerFailed(f"failed: {', '.join(failed)}", handlers=failed)
        await bridge.wait(inbox, inbox.fail, claim, str(error), retry_in=wait)
        raise error
    later = later or RetryLater()
    after = wait if later.retry_after is None else later.retry_after
    await bridge.wait(inbox, inbox.release, claim, retry_in=after)
    # A new one: what the handler raised may be an object that it raises again.
    raise RetryLater(after, str(later)) from None


async def _run_all(
    plan: Plan, delivery: Delivery, claim: Claim, inbox: Inbox, bridge: Bridge
) -> tuple[Outcome | None, list[str], RetryLater | None]:
    """Run the handlers; return the outcome if there is one, else who failed or what asked for a retry."""
    matched = plan.match(delivery.event.event)
    failed: list[str] = []
    later: RetryLater | None = None
    dropped = False
    for handler, decode in matched:
        if handler.name in claim.succeeded:
            continue
        try:
            event = decode(delivery.raw, delivery.event)
            arguments = (event, delivery) if handler.takes_delivery else (event,)
            await bridge.call(handler.function, *arguments)
        except DropDelivery as drop:
            telemetry.info("handler.dropped", handler=handler.name, reason=str(drop), **context(delivery))
            dropped = True
            break
        except RetryLater as error:
            telemetry.warning("handler.retry_later", handler=handler.name, reason=str(error), **context(delivery))
            later = _longer(later, error)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its failure
            failed.append(handler.name)
            begin_with_users_code(error)
            telemetry.error("handler.failed", error, handler=handler.name, **context(delivery))
            await call_hooks(plan.error_hooks, bridge, error, delivery)
        else:
            if len(matched) > 1:
                await bridge.wait(inbox, inbox.succeed, claim, handler.name)
    if failed or later:
        return None, failed, later
    if dropped:
        return Outcome.DROPPED, [], None
    return Outcome.HANDLED if matched else Outcome.IGNORED, [], None


def begin_with_users_code(error: BaseException) -> None:
    """Leave our own frames out of a traceback, whose variables hold the body: a log may print variables."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        traceback = traceback.tb_next
    error.__traceback__ = traceback


def forget_variables(error: Exception) -> None:
    """Empty our own frames of a fault that is not a handler's: they show where it was, but no body or signature."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
            with suppress(RuntimeError):  # it runs still
                traceback.tb_frame.clear()
        traceback = traceback.tb_next


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
            telemetry.error("hook.failed", error, hook=getattr(hook, "__qualname__", repr(hook)))


def context(delivery: Delivery) -> dict[str, object]:
    """Return what every log event about a delivery says of it."""
    return {
        "event_type": delivery.event.event,
        "resource": delivery.event.id,
        "delivery": delivery.id,
        "endpoint": delivery.identity.endpoint,
        "tenant": delivery.identity.tenant,
        "secret": delivery.secret_name,
        "attempt": delivery.attempt,
    }
