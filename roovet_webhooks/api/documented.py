"""What Roovet documents of its API: addresses, headers, scopes, errors, paging, and the answers that it shows.

Nothing here is a guess. What the documentation leaves open is in `assumed`.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from roovet_webhooks.api.resource import Resource

BASE_URL: Final = "https://roovet.com"

AUTHORIZATION: Final = "Authorization"  # Bearer <API_KEY>
VERSION_HEADER: Final = "X-Roovet-Version"
IDEMPOTENCY_HEADER: Final = "Idempotency-Key"

VERSIONS: Final = ("2025-09-15", "2025-11-10")
"""The version pins that the documentation shows, oldest first. The header is optional and may be empty."""

SCOPES: Final = ("wallet:read", "wallet:write", "shop:read", "shop:write", "search:read", "news:read")
"""What a key may be allowed. No endpoint of the documentation needs ``search:read`` or ``news:read``."""

RATE_LIMIT: Final = 60
"""Requests per key and `RATE_WINDOW`."""
RATE_WINDOW: Final = 60.0
"""Seconds."""
RATE_LIMIT_HEADER: Final = "X-RateLimit-Limit"
RATE_REMAINING_HEADER: Final = "X-RateLimit-Remaining"
RATE_RESET_HEADER: Final = "X-RateLimit-Reset"

MIN_LIMIT: Final = 1
MAX_LIMIT: Final = 100
"""Rows of a page."""

IDEMPOTENCY_WINDOW: Final = 24 * 3600.0
"""Seconds for which an ``Idempotency-Key`` is remembered; the documentation says "about 24 h"."""


class ErrorStatus(msgspec.Struct, frozen=True):
    """One row of the documentation's table of errors.

    Attributes:
        status: HTTP status.
        title: Its name there.
        meaning: Its explanation there.
    """

    status: int
    title: str
    meaning: str


ERROR_STATUSES: Final = {
    row.status: row
    for row in (
        ErrorStatus(400, "Bad Request", "Validation or malformed JSON."),
        ErrorStatus(401, "Unauthorized", "Missing/invalid API key."),
        ErrorStatus(403, "Insufficient Scope", "Key lacks required scope."),
        ErrorStatus(404, "Not Found", "Unknown endpoint or resource."),
        ErrorStatus(409, "Conflict", "Idempotency or state conflict."),
        ErrorStatus(429, "Too Many Requests", "Rate limit exceeded."),
    )
}


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a request.

    Attributes:
        type: Word for the kind of error, such as ``insufficient_scope``.
        code: The HTTP status as text.
        message: Sentence for a developer.
        param: Field, query parameter or header at fault; ``None`` where there is none.
    """

    type: str
    code: str
    message: str
    param: str | None = None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error.

    Attributes:
        error: What is wrong.
    """

    error: ErrorDetail


Timestamp = Annotated[datetime, Meta(tz=True)]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", examples=["USD"])]
Amount = Annotated[Decimal, Meta(extra_json_schema={"minimum": 0.01, "multipleOf": 0.01, "examples": [12.34]})]
"""A JSON number on the wire, exact in memory; `cents_of_amount` reads it."""


class Balance(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """What is in a wallet.

    Attributes:
        balance_cents: All of it, in cents.
        available_cents: What can be spent now, in cents.
        currency: ISO code, such as ``USD``.
        updated_at: When it last changed, in UTC.
    """

    balance_cents: int
    available_cents: int
    currency: Currency
    updated_at: Timestamp


class Transaction(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """One row of a wallet's account.

    Attributes:
        id: ``txn_…``.
        type: ``credit`` or ``debit``.
        amount_cents: Cents; negative for a debit.
        currency: ISO code.
        created_at: When it was booked, in UTC.
        source: Id of the transfer or order that caused it (assumed); ``None`` where Roovet sends none.
    """

    id: str
    type: str
    amount_cents: int
    currency: Currency
    created_at: Timestamp
    source: str | None = None


class Transfer(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """A transfer to another user.

    Attributes:
        id: ``trf_…``.
        status: ``processing`` in the documentation's example.
        amount_cents: Cents, positive.
        currency: ISO code.
        created_at: When it was ordered, in UTC.
    """

    id: str
    status: str
    amount_cents: int
    currency: Currency
    created_at: Timestamp


class TransferRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The body of ``POST /api/wallet/transfer``.

    Attributes:
        to: Id or email of the user who gets it.
        amount: Decimal amount, such as ``12.34``.
        currency: ISO code.
        note: Text for the receiver.
    """

    to: Annotated[str, Meta(min_length=1, max_length=254)]
    amount: Amount
    currency: Currency = "USD"
    note: Annotated[str, Meta(max_length=500)] | None = None
