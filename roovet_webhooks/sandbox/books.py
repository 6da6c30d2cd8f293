"""Money in the sandbox: double-entry books in whole cents.

Money is never changed in place. A movement takes it from one account and gives it to another; its entries add up to
zero, so the sum over all accounts is zero at any time, and a balance always equals the sum of its transactions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, func, insert, or_, select

from roovet_webhooks.sandbox.database import account, entry, insert_row, movement

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Where money comes from that enters the wallets: a card, a bank, the sandbox's seed. Its balance is negative.
OUTSIDE = "outside"
# Who sells what the shop sells.
SHOP = "shop"


class InsufficientFunds(Exception):
    """An account has less available than is to be taken from it.

    Attributes:
        available_cents: What it has.
    """

    def __init__(self, available_cents: int) -> None:
        super().__init__(f"{available_cents} cents are available")
        self.available_cents = available_cents


@dataclass(frozen=True)
class WalletState:
    """What an account holds.

    Attributes:
        balance_cents: The sum of its transactions.
        available_cents: The balance without what has been received and has not settled yet.
        updated_at: When it changed last, Unix milliseconds; 0 for never.
    """

    balance_cents: int
    available_cents: int
    updated_at: int


def find_account(connection: Connection, name: str) -> int | None:
    """Return the number of the account of a user, by user id or e-mail address."""
    found = select(account.c.id).where(or_(account.c.user_id == name, account.c.email == name))
    return connection.execute(found).scalar()


def account_of(connection: Connection, user_id: str) -> int:
    """Return the number of an account, which is opened if it is not there."""
    found = find_account(connection, user_id)
    if found is not None:
        return found
    return insert_row(connection, account, user_id=user_id, email=f"{user_id}@sandbox.example")


def wallet_state(connection: Connection, account_id: int, now: int) -> WalletState:
    """Return what an account holds at a time (Unix milliseconds)."""
    pending = and_(movement.c.available_at > now, entry.c.amount_cents > 0)
    sums = (
        select(
            func.coalesce(func.sum(entry.c.amount_cents), 0),
            func.coalesce(func.sum(entry.c.amount_cents).filter(pending), 0),
            func.coalesce(func.max(movement.c.created_at), 0),
        )
        .select_from(entry.join(movement))
        .where(entry.c.account_id == account_id)
    )
    balance, received, updated_at = connection.execute(sums).one()
    return WalletState(balance, balance - received, updated_at)


def move(  # noqa: PLR0913 - what a movement is made of
    connection: Connection,
    *,
    source: int,
    target: int,
    amount_cents: int,
    cause: str,
    now: int,
    available_at: int | None = None,
    overdraw: bool = False,
) -> None:
    """Move money from one account to another.

    Args:
        connection: The transaction that it belongs to.
        source: Who pays.
        target: Who receives.
        amount_cents: How much, at least 1.
        cause: Id of the transfer or order that moves it.
        now: Unix milliseconds.
        available_at: When the receiver may spend it; at once when ``None``.
        overdraw: Whether the source may owe: only what stands for the world outside may.

    Raises:
        InsufficientFunds: The source has less available.
    """
    if not overdraw:
        available = wallet_state(connection, source, now).available_cents
        if available < amount_cents:
            raise InsufficientFunds(available)
    usable = now if available_at is None else available_at
    number = insert_row(connection, movement, source=cause, created_at=now, available_at=usable)
    sides = ((source, -amount_cents), (target, amount_cents))
    connection.execute(
        insert(entry), [{"movement_id": number, "account_id": side, "amount_cents": cents} for side, cents in sides]
    )


def imbalances(connection: Connection) -> list[int]:
    """Return the movements whose entries do not add up to zero: none, unless the books are damaged."""
    sums = select(entry.c.movement_id).group_by(entry.c.movement_id).having(func.sum(entry.c.amount_cents) != 0)
    return list(connection.execute(sums).scalars())
