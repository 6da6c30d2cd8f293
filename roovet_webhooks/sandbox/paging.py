"""Cursor pages over numbered rows, the most recent first (vendor document, "Cursor Pagination")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from roovet_webhooks.api.resource import Page
from roovet_webhooks.sandbox.ids import id_of, number_of
from roovet_webhooks.sandbox.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, Connection, Row, Select

    from roovet_webhooks.api.assumed import PageQuery

T = TypeVar("T")


def page_of(  # noqa: PLR0913 - what a page is made of
    connection: Connection,
    rows: Select[*tuple[Any, ...]],
    column: Column[int],
    query: PageQuery,
    *,
    prefix: str,
    build: Callable[[Row[Any]], T],
) -> Page[T]:
    """Return a page of a list.

    Args:
        connection: A transaction.
        rows: All rows that the caller may see, in any order.
        column: Their number.
        query: Which page.
        prefix: How an id begins.
        build: Makes what the API shows of a row.

    Raises:
        Refusal: Both cursors are given, or one that names no row.
    """
    before, after = query.ending_before, query.starting_after
    if before is not msgspec.UNSET and after is not msgspec.UNSET:
        raise Refusal(400, "give starting_after or ending_before, not both", "ending_before")
    newer = before is not msgspec.UNSET
    cursor = before if newer else after
    if cursor is not msgspec.UNSET:
        number = number_of(prefix, str(cursor))
        if number is None or connection.execute(rows.where(column == number)).first() is None:
            param = "ending_before" if newer else "starting_after"
            raise Refusal(400, f"{param} names no row of this list", param)
        rows = rows.where(column > number if newer else column < number)
    ordered = rows.order_by(column.asc() if newer else column.desc()).limit(query.limit + 1)
    found = connection.execute(ordered).all()
    has_more = len(found) > query.limit
    shown = found[: query.limit]
    # The next page goes on from the row that was read last, whichever way it was read.
    next_cursor = id_of(prefix, shown[-1].id) if has_more else None
    if newer:
        shown = shown[::-1]
    return Page(data=tuple(map(build, shown)), has_more=has_more, next_cursor=next_cursor)
