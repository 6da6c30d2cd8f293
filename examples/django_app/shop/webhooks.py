"""What the shop does when something happens at Roovet. ``roovet_webhooks.django`` imports this module."""

from __future__ import annotations

import logging

from config.roovet import receiver
from roovet_webhooks import Delivery, DropDelivery, Event, OrderCreated
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
    """Call for a person: a handler failed. The worker tries it again, unless no attempt could succeed."""
    logger.error("%s needs attention: %s", delivery.id, type(error).__name__)


def record(delivery: Delivery, kind: str, amount_cents: int | None = None) -> None:
    """Write one line of the ledger, once for each delivery.

    A handler runs in the delivery's transaction: what it writes is committed together with the record that it has
    succeeded, so that no crash, no copy and no second worker writes it again.
    """
    Entry.objects.create(delivery=delivery.id, kind=kind, resource=delivery.event.id, amount_cents=amount_cents)
