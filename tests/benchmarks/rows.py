"""Whether storing and claiming cost the same however many deliveries an inbox holds: ``python rows.py``.

Two inboxes, one with few rows and one with many, take turns at storing and claiming the same number of deliveries.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from deliveries import roovet_body
from sqlalchemy import insert

from roovet_webhooks import Delivery, RetryPolicy, Verified
from roovet_webhooks.delivery import make_delivery
from roovet_webhooks.events import parse_envelope
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.protocol import Outcome
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.inbox.sql.schema import delivery as table

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 10_000


def deliveries(count: int, name: str, now: int) -> Iterator[Delivery]:
    for number in range(count):
        raw = roovet_body(300, f"{name}_{number}_")
        proof = Verified(now, "default")
        yield make_delivery(raw, parse_envelope(raw), proof, endpoint="shop", tenant="default", received_at=now)


def fill(inbox: SQLInbox, count: int) -> None:
    """Put done deliveries in, as years of work would have left them."""
    now = int(time.time()) - 1000
    done = {**changes.stored(now, now=now * 1000, settle=0), **changes.completed(Outcome.HANDLED, now=now * 1000)}
    rows: list[dict[str, object]] = []
    for number, one in enumerate(deliveries(count, "old", now), start=1):
        rows.append({**changes.recorded(one, one.raw, ""), **done})
        if number % CHUNK == 0 or number == count:
            with inbox._store.write() as (connection, _):
                connection.execute(insert(table), rows)
            rows.clear()


def turn(inbox: SQLInbox, count: int, name: str) -> tuple[float, float]:
    """Store and claim deliveries; return the rates of both, each a second."""
    fresh = list(deliveries(count, name, int(time.time()) - 5))
    began = time.perf_counter()
    for pending in [inbox.store(one, claim=False) for one in fresh]:
        pending.result(60)
    stored = time.perf_counter()
    claimed = 0
    while claimed < count:
        batch = inbox.claim("shop", limit=100).result(60)
        claimed += len(batch)
    ended = time.perf_counter()
    for one in inbox.claim("shop", limit=1).result(60):
        sys.exit(f"{one.delivery.id} was left")
    return count / (stored - began), count / (ended - stored)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--count", type=int, default=2_000, help="deliveries of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        inboxes: list[SQLInbox] = []
        for rows in (options.few, options.many):
            inbox = SQLInbox(f"sqlite:///{Path(folder).resolve() / f'{rows}.db'}", settle=0)
            inbox.attach("shop", RetryPolicy())
            fill(inbox, rows)
            inboxes.append(inbox)
        rates = [
            [turn(inbox, options.count, f"{place}_{number}") for place, inbox in enumerate(inboxes)]
            for number in range(options.rounds)
        ]
        for name, what in enumerate(("store", "claim")):
            ratios = [many[name] / few[name] for few, many in rates]
            median = statistics.median(ratios)
            told = f"{options.many} rows : {options.few} rows {median:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            sys.stdout.write(f"{what}: {told}, {statistics.median(many[name] for _, many in rates):,.0f} a second\n")
        for inbox in inboxes:
            inbox.close()


if __name__ == "__main__":
    main()
