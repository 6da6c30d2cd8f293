"""The methods of both clients, written once: each describes a call, and the client's driver sends it.

An editor shows `RoovetClient` their value and `AsyncRoovetClient` a coroutine of it, both with these parameters.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from roovet_webhooks.api import table
from roovet_webhooks.api.drivers import AsyncDriver, AsyncListing, AsyncVerb, Listing, SyncDriver, Verb
from roovet_webhooks.api.exchange import make_call
from roovet_webhooks.api.money import amount_of_cents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from roovet_webhooks.api.assumed import Cart, Order, PaymentMethod, Product
    from roovet_webhooks.api.documented import Balance, Transaction, Transfer
    from roovet_webhooks.api.exchange import Call
    from roovet_webhooks.api.paging import Row
    from roovet_webhooks.api.resource import Page

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound="Row")
D = TypeVar("D", SyncDriver, AsyncDriver)


class Group(Generic[D]):
    """The methods of one part of the API, with the driver that sends what they describe."""

    def __init__(self, driver: D) -> None:
        self.driver: D = driver


class verb(Generic[P, T]):  # noqa: N801 - a decorator
    """Makes a method that describes a call one that makes it."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._describe = describe

    @overload
    def __get__(self, group: None, owner: object) -> Callable[Concatenate[Any, P], Call[T]]: ...
    @overload
    def __get__(self, group: Group[SyncDriver], owner: object) -> Verb[P, T]: ...
    @overload
    def __get__(self, group: Group[AsyncDriver], owner: object) -> AsyncVerb[P, T]: ...
    def __get__(self, group: Group[Any] | None, owner: object) -> object:
        """Bind it to the driver of a group."""
        if group is None:
            return self._describe
        driver, describe = group.driver, MethodType(self._describe, group)
        return Verb(driver, describe) if isinstance(driver, SyncDriver) else AsyncVerb(driver, describe)


class listing(Generic[P, R]):  # noqa: N801 - a decorator
    """Makes a method that describes the call for a page one that returns the rows of all pages."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[Page[R]]]) -> None:
        self._describe = describe

    @overload
    def __get__(self, group: None, owner: object) -> Callable[Concatenate[Any, P], Call[Page[R]]]: ...
    @overload
    def __get__(self, group: Group[SyncDriver], owner: object) -> Listing[P, R]: ...
    @overload
    def __get__(self, group: Group[AsyncDriver], owner: object) -> AsyncListing[P, R]: ...
    def __get__(self, group: Group[Any] | None, owner: object) -> object:
        """Bind it to the driver of a group."""
        if group is None:
            return self._describe
        driver, describe = group.driver, MethodType(self._describe, group)
        return Listing(driver, describe) if isinstance(driver, SyncDriver) else AsyncListing(driver, describe)


class Wallet(Group[D]):
    """``client.wallet``: the wallet of the key's owner."""

    @verb
    def balance(self) -> Call[Balance]:
        """Return what is in the wallet. Needs ``wallet:read``."""
        return make_call(table.BALANCE)

    @listing
    def transactions(
        self, *, limit: int | None = None, starting_after: str | None = None, ending_before: str | None = None
    ) -> Call[Page[Transaction]]:
        """Return the transactions, most recent first; they are asked for page by page. Needs ``wallet:read``.

        Args:
            limit: Rows of a page, 1 to 100; not how many rows there are in all.
            starting_after: Id of a transaction: begin with the next older one.
            ending_before: Id of a transaction: begin with the next newer one, and go on to the newest.
        """
        return make_call(table.TRANSACTIONS, _page(limit, starting_after, ending_before))

    @verb
    def transfer(
        self,
        to: str,
        amount_cents: int,
        *,
        currency: str = "USD",
        note: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Transfer]:
        """Send money to another user. Needs ``wallet:write``.

        Args:
            to: Id or email of the user.
            amount_cents: How much, in cents.
            currency: ISO code.
            note: Text for the receiver.
            idempotency_key: Makes a repeated call act once, for about 24 hours. In a handler pass ``delivery.id``, so
                that another attempt at the delivery sends no second transfer. Without one each call makes its own.

        Raises:
            ValueError: The amount is no whole number of cents above 0, or another field is out of bounds.
        """
        given = {"to": to, "amount": amount_of_cents(amount_cents), "currency": currency, "note": note}
        return make_call(table.TRANSFER, given, idempotency_key=idempotency_key)


class Shop(Group[D]):
    """``client.shop``: the shop. Its answers and bodies are assumed: see `assumed`."""

    @listing
    def products(
        self,
        query: str | None = None,
        *,
        limit: int | None = None,
        starting_after: str | None = None,
        ending_before: str | None = None,
    ) -> Call[Page[Product]]:
        """Return the products that match a text; they are asked for page by page. Needs ``shop:read``.

        Args:
            query: Text to look for; ``None`` for every product.
            limit: Rows of a page, 1 to 100; not how many rows there are in all.
            starting_after: Id of a product: begin with the next older one.
            ending_before: Id of a product: begin with the next newer one, and go on to the newest.
        """
        return make_call(table.PRODUCTS, {"query": query, **_page(limit, starting_after, ending_before)})

    @verb
    def cart(
        self, items: Mapping[str, int], *, cart: str | None = None, idempotency_key: str | None = None
    ) -> Call[Cart]:
        """Create a cart, or replace what is in one. Needs ``shop:write``.

        Args:
            items: How many of which product: ``{"prd_1": 2}``.
            cart: Id of the cart to update; ``None`` for a new one.
            idempotency_key: As for `Wallet.transfer`.
        """
        lines = [{"product": product, "quantity": quantity} for product, quantity in items.items()]
        return make_call(table.CART, {"items": lines, "cart": cart}, idempotency_key=idempotency_key)

    @verb
    def checkout(self, cart: str, payment_method: PaymentMethod, *, idempotency_key: str | None = None) -> Call[Order]:
        """Order what is in a cart. Needs ``shop:write``.

        Args:
            cart: Id of the cart.
            payment_method: ``wallet`` or ``card``.
            idempotency_key: As for `Wallet.transfer`.
        """
        given = {"cart": cart, "payment_method": payment_method}
        return make_call(table.CHECKOUT, given, idempotency_key=idempotency_key)

    @listing
    def orders(
        self, *, limit: int | None = None, starting_after: str | None = None, ending_before: str | None = None
    ) -> Call[Page[Order]]:
        """Return the recent orders, most recent first; they are asked for page by page. Needs ``shop:read``.

        Args:
            limit: Rows of a page, 1 to 100; not how many rows there are in all.
            starting_after: Id of an order: begin with the next older one.
            ending_before: Id of an order: begin with the next newer one, and go on to the newest.
        """
        return make_call(table.ORDERS, _page(limit, starting_after, ending_before))


def _page(limit: int | None, starting_after: str | None, ending_before: str | None) -> dict[str, object]:
    return {"limit": limit, "starting_after": starting_after, "ending_before": ending_before}
