"""What a sandbox begins with: a small shop, three users, some history in the wallet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, update

from roovet_webhooks.sandbox import books
from roovet_webhooks.sandbox.database import account, product

if TYPE_CHECKING:
    from sqlalchemy import Connection

OWNER = "user_1"
"""The user whose keys the sandbox hands out."""

USERS = ((OWNER, "owner@example.com"), ("user_42", "ada@example.com"), ("user_43", "grace@example.com"))
PRODUCTS = (
    ("Oak chair", "A chair of solid oak with a woven seat.", 14_900, True),
    ("Folding chair", "Folds flat, carries 120 kg.", 3_950, True),
    ("Desk lamp", "Warm white, dimmable, with a long arm.", 5_900, True),
    ("Walnut desk", "140 by 70 cm, with a drawer for cables.", 64_900, True),
    ("Notebook", "192 dotted pages, thread bound.", 1_250, True),
    ("Fountain pen", "Fine steel nib, takes cartridges.", 2_999, True),
    ("Wool blanket", "Lambswool, 130 by 190 cm.", 8_900, True),
    ("Stoneware mug", "Holds 350 ml, dishwasher safe.", 1_499, True),
    ("Tea pot", "Cast iron, 800 ml, with a strainer.", 4_450, True),
    ("Record player", "Sold out until the next batch.", 24_900, False),
)
_DEPOSITS = (250_000, 99_900, 49_950)
_DAY = 86_400_000


def plant(connection: Connection, now: int) -> None:
    """Fill an empty sandbox.

    Args:
        connection: A transaction.
        now: Unix milliseconds; what happened before is dated before it.
    """
    for user_id, email in USERS:
        number = books.account_of(connection, user_id)
        connection.execute(update(account).where(account.c.id == number).values(email=email))
    connection.execute(
        insert(product),
        [
            {
                "name": name,
                "description": description,
                "price_cents": price,
                "available": available,
                "created_at": now - 30 * _DAY,
            }
            for name, description, price, available in PRODUCTS
        ],
    )
    outside, owner = books.account_of(connection, books.OUTSIDE), books.account_of(connection, OWNER)
    for days, cents in zip((20, 9, 2), _DEPOSITS, strict=True):
        moment = now - days * _DAY
        books.move(
            connection, source=outside, target=owner, amount_cents=cents, cause="deposit", now=moment, overdraw=True
        )
