"""`ENDPOINTS`: the API as a table. The client, the sandbox, the OpenAPI document and the reference are derived from it.

A new endpoint is one row here, and its types in `documented` or `assumed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar

from roovet_webhooks.api.assumed import (
    Cart,
    CartRequest,
    CheckoutRequest,
    Order,
    PageQuery,
    Product,
    ProductQuery,
)
from roovet_webhooks.api.documented import ERROR_STATUSES, Balance, Transaction, Transfer, TransferRequest
from roovet_webhooks.api.resource import Page

if TYPE_CHECKING:
    import msgspec

    from roovet_webhooks.api.resource import Resource

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Endpoint(Generic[T_co]):
    """One row of the table.

    Attributes:
        name: What it is called here and in the OpenAPI document, such as ``wallet.balance``.
        method: HTTP method.
        path: Path, from the root of the host.
        scope: What a key must be allowed.
        summary: One sentence; the documentation's where it has one.
        answer: Type of the body of a success.
        query: Type of the query, or ``None``. A list's is a `PageQuery`.
        body: Type of the body of the request, or ``None``.
        idempotent: Whether a repeated request acts once: a GET always, a write by its ``Idempotency-Key``.
        row: Type of a row where the answer is a `Page`, else ``None``.
        assumptions: What of it is assumed: topics of `ASSUMPTIONS`. Empty: all of it is documented.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    scope: str
    summary: str
    answer: type[T_co]
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    idempotent: bool = True
    row: type[Resource] | None = None
    assumptions: tuple[str, ...] = ()

    @property
    def paginated(self) -> bool:
        """Whether it answers with pages."""
        return self.row is not None

    @property
    def takes_idempotency_key(self) -> bool:
        """Whether a request may have an ``Idempotency-Key``."""
        return self.method != "GET" and self.idempotent

    @property
    def error_statuses(self) -> tuple[int, ...]:
        """The statuses of its errors. A conflict can only come of a write."""
        return tuple(status for status in ERROR_STATUSES if not (status == 409 and self.method == "GET"))  # noqa: PLR2004 - Conflict


BALANCE: Final = Endpoint(
    name="wallet.balance",
    method="GET",
    path="/api/wallet/balance",
    scope="wallet:read",
    summary="Returns current wallet balance and available amount.",
    answer=Balance,
)
TRANSACTIONS: Final = Endpoint(
    name="wallet.transactions",
    method="GET",
    path="/api/wallet/transactions",
    scope="wallet:read",
    summary="Cursor-paginated list of transactions (most recent first).",
    answer=Page[Transaction],
    query=PageQuery,
    row=Transaction,
    assumptions=("page-default", "page-order", "page-cursors", "transfer-source"),
)
TRANSFER: Final = Endpoint(
    name="wallet.transfer",
    method="POST",
    path="/api/wallet/transfer",
    scope="wallet:write",
    summary="Transfer funds to another user by ID or email.",
    answer=Transfer,
    body=TransferRequest,
    assumptions=("transfer", "unknown-fields", "idempotency"),
)
PRODUCTS: Final = Endpoint(
    name="shop.products",
    method="GET",
    path="/api/shop/products",
    scope="shop:read",
    summary="Search products and paginate results.",
    answer=Page[Product],
    query=ProductQuery,
    row=Product,
    assumptions=("shop-products", "page-shop", "page-default", "page-order", "page-cursors"),
)
CART: Final = Endpoint(
    name="shop.cart",
    method="POST",
    path="/api/shop/cart",
    scope="shop:write",
    summary="Create/update a cart.",
    answer=Cart,
    body=CartRequest,
    assumptions=("shop-cart", "unknown-fields", "idempotency"),
)
CHECKOUT: Final = Endpoint(
    name="shop.checkout",
    method="POST",
    path="/api/shop/checkout",
    scope="shop:write",
    summary="Checkout with wallet|card.",
    answer=Order,
    body=CheckoutRequest,
    assumptions=("shop-checkout", "unknown-fields", "idempotency"),
)
ORDERS: Final = Endpoint(
    name="shop.orders",
    method="GET",
    path="/api/shop/orders",
    scope="shop:read",
    summary="List recent orders.",
    answer=Page[Order],
    query=PageQuery,
    row=Order,
    assumptions=("shop-orders", "page-shop", "page-default", "page-order", "page-cursors"),
)

ENDPOINTS: Final[tuple[Endpoint[object], ...]] = (
    BALANCE,
    TRANSACTIONS,
    TRANSFER,
    PRODUCTS,
    CART,
    CHECKOUT,
    ORDERS,
)
"""Every endpoint, in the documentation's order."""
