"""What the shop does when something happens at Roovet."""

from __future__ import annotations

import logging

from roovet_webhooks import Delivery, DropDelivery, Event, OrderCreated, Router
from starlette_app.ledger import ledger

logger = logging.getLogger(__name__)
router = Router()


class TransferSettled(Event, event="transfer.settled"):
    """Money has moved. Without an amount in the payload, the ledger shows an entry to look up."""

    amount_cents: int | None = None


@router.on(TransferSettled)
async def book(event: TransferSettled, delivery: Delivery) -> None:
    """Book the money that moved."""
    if event.amount_cents == 0:
        reason = "no money moved"
        raise DropDelivery(reason)
    await ledger.record(delivery, "transfer", event.amount_cents)


@router.on(OrderCreated)
async def fulfil(_event: OrderCreated, delivery: Delivery) -> None:
    """Put the order on the list of what is to be sent."""
    await ledger.record(delivery, "order")


@router.on("wallet.*")
async def audit(_event: Event, delivery: Delivery) -> None:
    """Keep a trace of whatever happens to the wallet."""
    await ledger.record(delivery, "wallet")


@router.fallback
def unknown(event: Event) -> None:
    """Say that an event came which the shop does not know yet."""
    logger.warning("no handler for %s", event.event)


@router.on_error
def alert(error: Exception, delivery: Delivery) -> None:
    """Call for a person: a handler failed."""
    logger.error("%s needs attention: %s", delivery.id, type(error).__name__)
