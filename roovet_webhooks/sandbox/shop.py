"""The shop: products, carts, checkout, orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, or_, select, update

from roovet_webhooks.api.assumed import Cart, CheckoutRequest, LineItem, Order, Product
from roovet_webhooks.sandbox import books
from roovet_webhooks.sandbox.clock import datetime_of
from roovet_webhooks.sandbox.database import cart, cart_item, insert_row, order, order_item, product
from roovet_webhooks.sandbox.ids import CART, ORDER, PRODUCT, id_of, number_of
from roovet_webhooks.sandbox.outbox import record_event
from roovet_webhooks.sandbox.paging import page_of
from roovet_webhooks.sandbox.refusal import Refusal
from roovet_webhooks.sandbox.wallet import CURRENCY, Call, pay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from roovet_webhooks.api.assumed import CartItem, CartRequest, PageQuery, ProductQuery
    from roovet_webhooks.api.resource import Page

OPEN, ORDERED = "open", "ordered"


def products(call: Call, query: ProductQuery) -> Page[Product]:
    """Return a page of the products whose name or description contains the text."""
    rows = select(product)
    if query.query:
        texts = (product.c.name, product.c.description)
        rows = rows.where(or_(*(text.icontains(query.query, autoescape=True) for text in texts)))
    return page_of(
        call.connection,
        rows,
        product.c.id,
        query,
        prefix=PRODUCT,
        build=lambda row: Product(
            id=id_of(PRODUCT, row.id),
            name=row.name,
            description=row.description,
            price_cents=row.price_cents,
            currency=CURRENCY,
            available=row.available,
            created_at=datetime_of(row.created_at),
        ),
    )


def save_cart(call: Call, body: CartRequest) -> Cart:
    """Create a cart, or replace what is in one.

    Raises:
        Refusal: 404 for an unknown cart or product, 409 for a cart that was ordered or a product that is sold out.
    """
    quantities = _quantities(call, body.items)
    if body.cart is None:
        number = insert_row(
            call.connection, cart, account_id=call.account_id, status=OPEN, created_at=call.now, updated_at=call.now
        )
    else:
        number = _open_cart(call, body.cart).id
        call.connection.execute(delete(cart_item).where(cart_item.c.cart_id == number))
        call.connection.execute(update(cart).where(cart.c.id == number).values(updated_at=call.now))
    rows = [{"cart_id": number, "product_id": item, "quantity": count} for item, count in quantities.items()]
    call.connection.execute(insert(cart_item), rows)
    row = call.connection.execute(select(cart).where(cart.c.id == number)).one()
    items = _items_in_cart(call, number)
    return Cart(
        id=id_of(CART, number),
        status=row.status,
        items=items,
        total_cents=_total(items),
        currency=CURRENCY,
        created_at=datetime_of(row.created_at),
        updated_at=datetime_of(row.updated_at),
    )


def checkout(call: Call, body: CheckoutRequest) -> Order:
    """Order what is in a cart, and pay for it.

    Raises:
        Refusal: 404 for an unknown cart, 409 for one that was ordered or a wallet that does not suffice.
    """
    number = _open_cart(call, body.cart).id
    items = _items_in_cart(call, number)
    total = _total(items)
    order_number = insert_row(
        call.connection,
        order,
        account_id=call.account_id,
        cart_id=number,
        status="paid",
        payment_method=body.payment_method,
        total_cents=total,
        created_at=call.now,
    )
    lines = [
        {
            "order_id": order_number,
            "product_id": number_of(PRODUCT, item.product),
            "name": item.name,
            "quantity": item.quantity,
            "price_cents": item.price_cents,
        }
        for item in items
    ]
    call.connection.execute(insert(order_item), lines)
    call.connection.execute(update(cart).where(cart.c.id == number).values(status=ORDERED, updated_at=call.now))
    name = id_of(ORDER, order_number)
    shop = books.account_of(call.connection, books.SHOP)
    if body.payment_method == "wallet":
        pay(call, shop, total, cause=name)
    else:
        card = books.account_of(call.connection, books.OUTSIDE)
        books.move(
            call.connection, source=card, target=shop, amount_cents=total, cause=name, now=call.now, overdraw=True
        )
    record_event(call.connection, "order.created", name, now=call.now)
    row = call.connection.execute(select(order).where(order.c.id == order_number)).one()
    return _order(row, items)


def orders(call: Call, query: PageQuery) -> Page[Order]:
    """Return a page of the caller's orders."""
    rows = select(order).where(order.c.account_id == call.account_id)
    return page_of(
        call.connection,
        rows,
        order.c.id,
        query,
        prefix=ORDER,
        build=lambda row: _order(row, _items_in_order(call, row.id)),
    )


def _order(row: Row[Any], items: tuple[LineItem, ...]) -> Order:
    return Order(
        id=id_of(ORDER, row.id),
        status=row.status,
        items=items,
        total_cents=row.total_cents,
        currency=CURRENCY,
        payment_method=row.payment_method,
        cart=id_of(CART, row.cart_id),
        created_at=datetime_of(row.created_at),
    )


def _open_cart(call: Call, name: str) -> Row[Any]:
    number = number_of(CART, name)
    mine = select(cart).where(cart.c.id == number, cart.c.account_id == call.account_id)
    found = None if number is None else call.connection.execute(mine).first()
    if found is None:
        raise Refusal(404, "there is no such cart", "cart")
    if found.status != OPEN:
        raise Refusal(409, "the cart has been ordered", "cart")
    return found


def _quantities(call: Call, items: Sequence[CartItem]) -> dict[int, int]:
    """Return how many of each product a cart is to have."""
    wanted: dict[int, int] = {}
    for item in items:
        number = number_of(PRODUCT, item.product)
        found = (
            None if number is None else call.connection.execute(select(product).where(product.c.id == number)).first()
        )
        if found is None:
            raise Refusal(404, f"there is no product {item.product}", "items")
        if not found.available:
            raise Refusal(409, f"{item.product} is sold out", "items")
        wanted[found.id] = wanted.get(found.id, 0) + item.quantity
    return wanted


def _items_in_cart(call: Call, number: int) -> tuple[LineItem, ...]:
    lines = select(product.c.id, product.c.name, cart_item.c.quantity, product.c.price_cents).select_from(
        cart_item.join(product)
    )
    return _items(call, lines.where(cart_item.c.cart_id == number).order_by(product.c.id))


def _items_in_order(call: Call, number: int) -> tuple[LineItem, ...]:
    lines = select(
        order_item.c.product_id.label("id"), order_item.c.name, order_item.c.quantity, order_item.c.price_cents
    )
    return _items(call, lines.where(order_item.c.order_id == number).order_by(order_item.c.product_id))


def _items(call: Call, lines: Any) -> tuple[LineItem, ...]:  # noqa: ANN401 - a select of four columns
    return tuple(
        LineItem(product=id_of(PRODUCT, row.id), name=row.name, quantity=row.quantity, price_cents=row.price_cents)
        for row in call.connection.execute(lines)
    )


def _total(items: Sequence[LineItem]) -> int:
    return sum(item.quantity * item.price_cents for item in items)
