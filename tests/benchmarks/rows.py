"""Whether an inbox costs the same however many deliveries it holds: ``python rows.py``.

Two inboxes, one with few rows and one with many, take turns at storing, claiming and ending the same number of
deliveries. They are SQLite files, or with ``--postgresql URL`` databases that are made there and removed again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deliveries import roovet_body
from sqlalchemy import create_engine, insert, make_url

from roovet_webhooks import Delivery, RetryPolicy, Verified
from roovet_webhooks.delivery import make_delivery
from roovet_webhooks.events import parse_envelope
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.inbox.sql.schema import delivery as table
from roovet_webhooks.inbox.states import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from roovet_webhooks.inbox.protocol import Claim

CHUNK = 10_000


def deliveries(count: int, name: str, now: int) -> Iterator[Delivery]:
    for number in range(count):
        raw = roovet_body(300, f"{name}_{number}_")
        proof = Verified(now, "default")
        yield make_delivery(raw, parse_envelope(raw), proof, endpoint="shop", tenant="default", received_at=now)


def fill(inbox: SQLInbox, count: int) -> None:
    """Put done deliveries in, as years of work would have left them."""
    now = int(time.time()) - 1000
    done = {
        **changes.stored(now, received_at=now * 1000, now=now * 1000, settle=0),
        **changes.completed(Outcome.HANDLED, now=now * 1000),
    }
    rows: list[dict[str, object]] = []
    for number, one in enumerate(deliveries(count, "old", now), start=1):
        rows.append({**changes.recorded(one, one.raw, ""), **done})
        if number % CHUNK == 0 or number == count:
            with inbox._store.write() as (connection, _):
                connection.execute(insert(table), rows)
            rows.clear()


def turn(inbox: SQLInbox, count: int, name: str) -> tuple[float, float, float]:
    """Store, claim and end deliveries; return the rates of the three, each a second."""
    fresh = list(deliveries(count, name, int(time.time()) - 5))
    began = time.perf_counter()
    for pending in [inbox.store(one, claim=False) for one in fresh]:
        pending.result(60)
    stored = time.perf_counter()
    claims: list[Claim] = []
    while len(claims) < count:
        claims += [one.claim for one in inbox.claim("shop", limit=32).result(60)]
    claimed = time.perf_counter()
    for first in range(0, count, 32):
        for settled in [inbox.complete(claim, Outcome.HANDLED) for claim in claims[first : first + 32]]:
            settled.result(60)
    ended = time.perf_counter()
    for one in inbox.claim("shop", limit=1).result(60):
        sys.exit(f"{one.delivery.id} was left")
    return count / (stored - began), count / (claimed - stored), count / (ended - claimed)


@contextmanager
def databases(server: str, names: Sequence[str]) -> Iterator[list[str]]:
    """Make databases in a PostgreSQL server, and remove them at the end."""
    url = make_url(server)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        try:
            for name in names:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
            yield [url.set(database=name).render_as_string(hide_password=False) for name in names]
        finally:
            for name in names:
                connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    engine.dispose()


@contextmanager
def files(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield URLs of SQLite files on this disk."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        yield [f"sqlite:///{Path(folder).resolve() / f'{name}.db'}" for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--count", type=int, default=2_000, help="deliveries of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--postgresql", metavar="URL", help="a server instead of files")
    options = parser.parse_args()
    names = [f"roovet_rows_{rows}_{os.getpid()}" for rows in (options.few, options.many)]
    with databases(options.postgresql, names) if options.postgresql else files(names) as urls:
        inboxes: list[SQLInbox] = []
        for url, rows in zip(urls, (options.few, options.many), strict=True):
            inbox = SQLInbox(url, settle=0)
            inbox.attach("shop", RetryPolicy())
            fill(inbox, rows)
            inboxes.append(inbox)
        rates = [
            [turn(inbox, options.count, f"{place}_{number}") for place, inbox in enumerate(inboxes)]
            for number in range(options.rounds)
        ]
        for name, what in enumerate(("store", "claim", "complete")):
            ratios = [many[name] / few[name] for few, many in rates]
            median = statistics.median(ratios)
            told = f"{options.many} rows : {options.few} rows {median:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            sys.stdout.write(f"{what}: {told}, {statistics.median(many[name] for _, many in rates):,.0f} a second\n")
        for inbox in inboxes:
            inbox.close()


if __name__ == "__main__":
    main()
