"""`look_up`: finds what a thin event is about among the recent rows, as the API has no endpoint for one of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from roovet_webhooks.api import table
from roovet_webhooks.api.documented import MAX_LIMIT, Transaction
from roovet_webhooks.api.errors import NotFetchable, NotThereYet
from roovet_webhooks.api.exchange import make_call
from roovet_webhooks.api.paging import next_call

if TYPE_CHECKING:
    from collections.abc import Generator

    from roovet_webhooks.api.assumed import Order
    from roovet_webhooks.api.exchange import Call
    from roovet_webhooks.api.resource import Page
    from roovet_webhooks.events import Event

_LISTS: dict[str, table.Endpoint[Any]] = {
    "ord_": table.ORDERS,
    "txn_": table.TRANSACTIONS,
    "trf_": table.TRANSACTIONS,  # the transaction that the transfer caused
}
_CREATED = ".created"
_CLOCKS = timedelta(hours=1)  # by which the clocks that date an event and a row may differ


def look_up(event: Event, *, recent: int) -> Generator[Call[Page[Any]], Page[Any], Order | Transaction]:
    """Yield the calls that look for what an event is about; return it.

    Raises:
        NotThereYet: It is not among the ``recent`` rows.
        NotFetchable: The API has no list of such things.
    """
    endpoint = next((row for prefix, row in _LISTS.items() if event.id.startswith(prefix)), None)
    if endpoint is None:
        message = (
            f"the API has no endpoint for {event.id!r} of {event.event!r}; "
            "it has lists of orders (ord_…) and transactions (txn_…, trf_…)"
        )
        raise NotFetchable(message)
    # Whatever was created with the event is no older than it, so that most misses cost one request.
    oldest = event.occurred_at - _CLOCKS if event.event.endswith(_CREATED) else None
    call: Call[Page[Any]] | None = make_call(endpoint, {"limit": min(recent, MAX_LIMIT)})
    seen = 0
    while call is not None and seen < recent:
        page = yield call
        rows: tuple[Order | Transaction, ...] = page.data
        for row in rows:
            if event.id == row.id or (isinstance(row, Transaction) and event.id == row.source):
                return row
        seen += len(rows)
        if oldest is not None and rows and rows[-1].created_at < oldest:
            break
        call = next_call(call, page)
    raise NotThereYet(event.id)
