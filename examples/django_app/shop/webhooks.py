"""What the shop does when something happens at Roovet. ``roovet_webhooks.django`` imports this module."""

from __future__ import annotations

import logging

from django.db import OperationalError

from config.roovet import receiver
from roovet_webhooks import Delivery, DropDelivery, Event, OrderCreated, RetryLater
from shop.models import Entry

logger = logging.getLogger(__name__)


class TransferSettled(Event, event="transfer.settled"):
    """Money has moved. Without an amount in the payload, the ledger shows an entry to look up."""

    amount_cents: int | None = None


@receiver.on(TransferSettled)
def book(event: TransferSettled, delivery: Delivery) -> None:
    """Book the money that moved."""
    if event.amount_cents == 0:
        reason = "no money moved"
        raise DropDelivery(reason)
    record(delivery, "transfer", event.amount_cents)


@receiver.on(OrderCreated)
def fulfil(_event: OrderCreated, delivery: Delivery) -> None:
    """Put the order on the list of what is to be sent."""
    record(delivery, "order")


@receiver.on("wallet.*")
def audit(_event: Event, delivery: Delivery) -> None:
    """Keep a trace of whatever happens to the wallet."""
    record(delivery, "wallet")


@receiver.fallback
def unknown(event: Event) -> None:
    """Say that an event came which the shop does not know yet."""
    logger.warning("no handler for %s", event.event)


@receiver.on_error
def alert(error: Exception, delivery: Delivery) -> None:
    """Call for a person: a handler failed."""
    logger.error("%s needs attention: %s", delivery.id, type(error).__name__)


def record(delivery: Delivery, kind: str, amount_cents: int | None = None) -> None:
    """Write one line of the ledger, once for each delivery."""
    line = {"kind": kind, "resource": delivery.event.id, "amount_cents": amount_cents}
    try:
        Entry.objects.get_or_create(delivery=delivery.id, defaults=line)
    except OperationalError as error:
        # Locked or out of reach: nobody's failure, so the sender is asked to come back.
        raise RetryLater(after=5, reason=f"the ledger is not available: {error}") from error
