"""The wallet: balance, transactions, transfers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from roovet_webhooks.api.documented import Balance, Transaction, Transfer
from roovet_webhooks.api.money import cents_of_amount
from roovet_webhooks.sandbox import books
from roovet_webhooks.sandbox.clock import datetime_of
from roovet_webhooks.sandbox.database import entry, insert_row, movement, transfer
from roovet_webhooks.sandbox.ids import TRANSACTION, TRANSFER, id_of
from roovet_webhooks.sandbox.outbox import record_event
from roovet_webhooks.sandbox.paging import page_of
from roovet_webhooks.sandbox.refusal import Refusal

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from roovet_webhooks.api.assumed import PageQuery
    from roovet_webhooks.api.documented import TransferRequest
    from roovet_webhooks.api.resource import Page

CURRENCY = "USD"
SETTLEMENT = 2_000  # milliseconds until the receiver of a transfer may spend it


class Call(NamedTuple):
    """One request to the API that has passed every check.

    Attributes:
        connection: Its transaction.
        account_id: Whose key it came with.
        now: Unix milliseconds.
    """

    connection: Connection
    account_id: int
    now: int


def balance(call: Call, _query: None) -> Balance:
    """Return what is in the wallet."""
    state = books.wallet_state(call.connection, call.account_id, call.now)
    return Balance(
        balance_cents=state.balance_cents,
        available_cents=state.available_cents,
        currency=CURRENCY,
        updated_at=datetime_of(state.updated_at),
    )


def transactions(call: Call, query: PageQuery) -> Page[Transaction]:
    """Return a page of the wallet's transactions."""
    rows = (
        select(entry.c.id, entry.c.amount_cents, movement.c.source, movement.c.created_at)
        .select_from(entry.join(movement))
        .where(entry.c.account_id == call.account_id)
    )
    return page_of(
        call.connection,
        rows,
        entry.c.id,
        query,
        prefix=TRANSACTION,
        build=lambda row: Transaction(
            id=id_of(TRANSACTION, row.id),
            type="credit" if row.amount_cents > 0 else "debit",
            amount_cents=row.amount_cents,
            currency=CURRENCY,
            created_at=datetime_of(row.created_at),
            source=row.source,
        ),
    )


def make_transfer(call: Call, body: TransferRequest) -> Transfer:
    """Move money to another user.

    Raises:
        Refusal: 400 for the amount, the currency or a transfer to oneself, 404 for an unknown receiver, 409 where the
            wallet does not suffice.
    """
    if body.currency != CURRENCY:
        raise Refusal(400, f"the wallet holds {CURRENCY}, not {body.currency}", "currency")
    try:
        cents = cents_of_amount(body.amount)
    except ValueError as error:
        raise Refusal(400, str(error), "amount") from None
    receiver = books.find_account(call.connection, body.to)
    if receiver is None:
        raise Refusal(404, "there is no such user", "to")
    if receiver == call.account_id:
        raise Refusal(400, "a transfer goes to another user", "to")
    number = insert_row(
        call.connection,
        transfer,
        sender_id=call.account_id,
        receiver_id=receiver,
        amount_cents=cents,
        note=body.note,
        created_at=call.now,
    )
    name = id_of(TRANSFER, number)
    settles_at = call.now + SETTLEMENT
    pay(call, receiver, cents, cause=name, available_at=settles_at)
    record_event(call.connection, "transfer.created", name, now=call.now)
    record_event(call.connection, "transfer.settled", name, now=call.now, due_at=settles_at)
    return Transfer(
        id=name, status="processing", amount_cents=cents, currency=CURRENCY, created_at=datetime_of(call.now)
    )


def pay(call: Call, target: int, cents: int, *, cause: str, available_at: int | None = None) -> None:
    """Move money out of the caller's wallet.

    Raises:
        Refusal: 409, the wallet does not suffice.
    """
    try:
        books.move(
            call.connection,
            source=call.account_id,
            target=target,
            amount_cents=cents,
            cause=cause,
            now=call.now,
            available_at=available_at,
        )
    except books.InsufficientFunds as error:
        message = f"the wallet does not suffice: {error.available_cents} cents are available, {cents} are needed"
        raise Refusal(409, message) from None
