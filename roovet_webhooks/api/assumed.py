"""What this package assumes of the API where Roovet documents nothing: one module, so that one place is corrected.

`ASSUMPTIONS` says each in a sentence; the reference prints them. The shop's answers and bodies are all assumed.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from roovet_webhooks.api.documented import MAX_LIMIT, MIN_LIMIT, Currency, Timestamp
from roovet_webhooks.api.resource import Resource

SUCCESS_STATUS: Final = 200
DEFAULT_LIMIT: Final = 20
RETRY_AFTER_HEADER: Final = "Retry-After"
REQUEST_ID_HEADER: Final = "X-Request-Id"
MAX_ID_CHARACTERS: Final = 255

ERROR_TYPES: Final = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "insufficient_scope",  # documented
    404: "not_found",
    409: "conflict",
    429: "rate_limited",
    500: "internal_error",
}
"""The ``type`` in the error body for each status."""

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARACTERS)]
PaymentMethod = Literal["wallet", "card"]


class PageQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The query of a list. Its names and bounds are documented, the default of ``limit`` is not.

    Attributes:
        limit: Rows of a page.
        starting_after: Id of a row; the page begins with the next older one.
        ending_before: Id of a row; the page ends with the next newer one. Not together with ``starting_after``.
    """

    limit: Annotated[int, Meta(ge=MIN_LIMIT, le=MAX_LIMIT)] = DEFAULT_LIMIT
    starting_after: Id | msgspec.UnsetType = msgspec.UNSET
    ending_before: Id | msgspec.UnsetType = msgspec.UNSET


class ProductQuery(PageQuery, frozen=True, kw_only=True, omit_defaults=True):
    """The query of the product search.

    Attributes:
        query: Text to look for; empty for every product.
    """

    query: Annotated[str, Meta(max_length=200)] = ""


class Product(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """Something the shop sells.

    Attributes:
        id: ``prd_…``.
        name: Its name.
        description: A sentence about it; may be empty.
        price_cents: Price of one, in cents.
        currency: ISO code.
        available: Whether it can be ordered.
        created_at: When it was added, in UTC.
    """

    id: str
    name: str
    description: str = ""
    price_cents: int
    currency: Currency
    available: bool = True
    created_at: Timestamp


class LineItem(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a cart or an order.

    Attributes:
        product: ``prd_…``.
        name: Name of the product.
        quantity: How many.
        price_cents: Price of one, in cents.
    """

    product: str
    name: str
    quantity: int
    price_cents: int


class Cart(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody is about to buy.

    Attributes:
        id: ``cart_…``.
        status: ``open``, or ``ordered`` after the checkout.
        items: Its lines.
        total_cents: Sum of the lines, in cents.
        currency: ISO code.
        created_at: When it was created, in UTC.
        updated_at: When it last changed, in UTC.
    """

    id: str
    status: str
    items: tuple[LineItem, ...]
    total_cents: int
    currency: Currency
    created_at: Timestamp
    updated_at: Timestamp


class Order(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """A cart that was checked out.

    Attributes:
        id: ``ord_…``, the ``id`` of the event ``order.created``.
        status: ``paid`` or ``processing``.
        items: Its lines.
        total_cents: Sum of the lines, in cents.
        currency: ISO code.
        payment_method: ``wallet`` or ``card``.
        cart: ``cart_…``, the cart it came from; ``None`` where Roovet sends none.
        created_at: When it was ordered, in UTC.
    """

    id: str
    status: str
    items: tuple[LineItem, ...]
    total_cents: int
    currency: Currency
    payment_method: str
    cart: str | None = None
    created_at: Timestamp


class CartItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line that a cart is to have.

    Attributes:
        product: ``prd_…``.
        quantity: How many.
    """

    product: Id
    quantity: Annotated[int, Meta(ge=1, le=1000)] = 1


class CartRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The body of ``POST /api/shop/cart``.

    Attributes:
        items: All lines of the cart; they replace those that it has.
        cart: The cart to update; without it a new one is created.
    """

    items: Annotated[tuple[CartItem, ...], Meta(min_length=1, max_length=100)]
    cart: Id | None = None


class CheckoutRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /api/shop/checkout``.

    Attributes:
        cart: The cart to order.
        payment_method: What pays for it.
    """

    cart: Id
    payment_method: PaymentMethod


ASSUMPTIONS: Final = {
    "success": "A request that succeeds is answered with 200; the client takes every 2xx for a success.",
    "error-types": (
        "The error types are `invalid_request`, `unauthenticated`, `not_found`, `conflict` and `rate_limited`; only "
        "`insufficient_scope` is documented."
    ),
    "unknown-endpoint": "An unknown path, or a known one with another method, is answered with 404.",
    "retry-after": "An answer 429 may have a `Retry-After` header with the seconds to wait.",
    "rate-reset": (
        "`X-RateLimit-Reset` is in Unix seconds by the clock of the `Date` header; the client takes a number below "
        "1,000,000,000 for seconds to wait."
    ),
    "rate-window": "The 60 requests are counted in windows of one minute that begin with the first request.",
    "version": (
        "An empty `X-Roovet-Version` is like none, and means the newest version; a version that the documentation "
        "does not show is answered with 400."
    ),
    "request-id": "An answer may have an `X-Request-Id` header, which errors of the client repeat.",
    "scope-check": "The key is checked before the scope, the scope before the rest of the request.",
    "idempotency": (
        "The same `Idempotency-Key` with the same endpoint and body gets the first answer again; with another endpoint "
        "or body it is answered with 409. Without the header each request acts."
    ),
    "page-default": "A page has 20 rows unless `limit` says otherwise.",
    "page-order": (
        "All lists are most recent first. A page before a cursor (`ending_before`) holds the rows next to the cursor; "
        "its `has_more` and `next_cursor` (the id of its first row) lead to more recent ones."
    ),
    "page-cursors": (
        "`starting_after` together with `ending_before`, a `limit` out of bounds and an unknown cursor are answered "
        "with 400. Unknown query parameters are ignored."
    ),
    "page-shop": "Products and orders are paged like transactions.",
    "unknown-fields": "An unknown field in a body is answered with 400.",
    "transfer": (
        "A transfer has an amount of at most 999,999,999.99 with two decimal places. `currency` is USD where the "
        "request has none. The receiver must exist (404), be somebody else (400), and the balance must suffice (409)."
    ),
    "transfer-source": (
        "A transaction names the transfer or order that caused it in `source`. Roovet documents no endpoint for a "
        "transfer, so `fetch` looks for such a transaction."
    ),
    "shop-products": "A product has `id`, `name`, `description`, `price_cents`, `currency`, `available`, `created_at`.",
    "shop-cart": (
        "A cart is created with `items` (`product` and `quantity`) and updated with its id in `cart`; the items "
        "replace those that it has. An unknown product or cart is answered with 404, a cart that was ordered with 409."
    ),
    "shop-checkout": (
        "A checkout names the `cart` and the `payment_method`, `wallet` or `card`, and is answered with the order. A "
        "wallet that does not suffice and a cart that was ordered are answered with 409."
    ),
    "shop-orders": "There is no endpoint for one order; it is looked for among the recent ones.",
}
"""What is assumed, by topic; each a sentence or two for the reference."""
