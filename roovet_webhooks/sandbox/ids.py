"""The ids that the API shows, such as ``ord_1001``: a prefix and the number of the row."""

from __future__ import annotations

import re

TRANSACTION, TRANSFER, PRODUCT, CART, ORDER = "txn", "trf", "prd", "cart", "ord"

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def id_of(prefix: str, number: int) -> str:
    """Return the id of a row."""
    return f"{prefix}_{number}"


def number_of(prefix: str, text: str) -> int | None:
    """Return the number of the row that an id names, or ``None`` where it can name none."""
    head, _, digits = text.partition("_")
    return int(digits) if head == prefix and _NUMBER.fullmatch(digits) else None
