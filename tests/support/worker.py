"""What tests of workers share: deliveries in a durable inbox, and a look at what became of them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, cast

from roovet_webhooks import Event, WebhookReceiver
from roovet_webhooks.inbox.protocol import Verdict
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.sql import SQLInbox
from support import SECRET, headers_of, payload, request_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from roovet_webhooks.inbox.records import RecordedDelivery

# Seconds; on a busy machine the processes of these tests take long to start.
PATIENCE = 90.0


def receiver_on(path: Path, *, lease: float = 60.0, **options: Any) -> WebhookReceiver:  # noqa: ANN401 - the receiver's options
    """Return a receiver whose inbox is a SQLite file, in which deliveries are due at once."""
    inbox = SQLInbox(f"sqlite:///{path / 'inbox.db'}", settle=0, lease=lease, timeout=5.0)
    return WebhookReceiver(SECRET, inbox=inbox, **options)


def nothing(_event: Event) -> None:
    """Handle an event with success."""


def deliver(receiver: WebhookReceiver, event: str = "order.created", *, count: int = 1, **fields: object) -> None:
    """Have a receiver record deliveries that were signed just now."""
    now = int(time.time())
    inbox = receiver.durable_inbox
    answers: list[Any] = []
    for _ in range(count):
        raw = payload(event, **{"ts": now - 5, **fields})
        delivery = receiver.open(request_of(raw, headers_of(raw, timestamp=now)))
        answers.append(inbox.store(delivery, claim=False))
    assert {answer.result(PATIENCE).verdict for answer in answers} == {Verdict.NEW}


def records_of(receiver: WebhookReceiver) -> list[RecordedDelivery]:
    """Return what a receiver's inbox has recorded, the first first."""
    inbox = receiver.durable_inbox
    return list(reversed(inbox.find(Query(endpoint=receiver.endpoint, limit=10_000))))


def states_of(receiver: WebhookReceiver) -> list[str]:
    return [record.state.value for record in records_of(receiver)]


def eventually(condition: Callable[[], bool], told: Callable[[], object] = lambda: "it did not come to that") -> None:
    """Wait until something is so; ``told`` gives what to say when it does not come to that."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)


async def soon(condition: Callable[[], bool]) -> None:
    """Wait in a coroutine until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.01)


def written(receiver: WebhookReceiver, statement: str, *values: object) -> None:
    """Change a receiver's SQLite file behind its back."""
    with closing(sqlite3.connect(vars(cast("SQLInbox", receiver.inbox))["_store"].path, timeout=10)) as connection:
        connection.execute(statement, values)
        connection.commit()
