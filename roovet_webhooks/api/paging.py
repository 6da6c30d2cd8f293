"""Which page comes after a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from roovet_webhooks.api.errors import UndecodableAnswer
from roovet_webhooks.api.exchange import follow_cursor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roovet_webhooks.api.exchange import Call
    from roovet_webhooks.api.resource import Page


class Row(Protocol):
    """What every row of a list has."""

    @property
    def id(self) -> str:
        """Its id, which serves as a cursor."""
        ...


R = TypeVar("R", bound=Row)


def _goes_back(call: Call[Page[R]]) -> bool:
    return "ending_before" in call.query


def rows_of(call: Call[Page[R]], page: Page[R]) -> Sequence[R]:
    """Return the rows in the direction of the call: a page itself is always most recent first."""
    return page.data[::-1] if _goes_back(call) else page.data


def next_call(call: Call[Page[R]], page: Page[R]) -> Call[Page[R]] | None:
    """Return the call for the page that follows, or ``None`` after the last.

    Raises:
        UndecodableAnswer: The page leads to itself.
    """
    rows = rows_of(call, page)
    if not (page.has_more and rows):
        return None
    # Going back, the row itself: what next_cursor is then, is not documented.
    cursor = rows[-1].id if _goes_back(call) or page.next_cursor is None else page.next_cursor
    if cursor in call.query.values():
        message = f"{call.endpoint.name}: the page after {cursor} leads to {cursor} again"
        raise UndecodableAnswer(message, status=200)
    return follow_cursor(call, cursor)
