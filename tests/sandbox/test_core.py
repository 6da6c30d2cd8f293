"""What the sandbox checks of itself."""

from __future__ import annotations

from contextlib import closing

import pytest
from sqlalchemy import update

from roovet_webhooks.sandbox import Sandbox
from roovet_webhooks.sandbox.database import entry


def test_money_from_nowhere_is_found() -> None:
    with closing(Sandbox()) as sandbox:
        sandbox.check_books()
        with sandbox.database.begin() as connection:
            connection.execute(update(entry).values(amount_cents=entry.c.amount_cents + 1))
        with pytest.raises(RuntimeError, match="the books do not balance: movements"):
            sandbox.check_books()
