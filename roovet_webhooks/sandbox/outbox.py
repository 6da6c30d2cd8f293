"""What is still to be sent: each event as its bytes, a message for each endpoint, and a log of every attempt.

An event is written in the transaction of what it tells of, so that neither is there without the other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, insert, literal, select, update

from roovet_webhooks.sandbox.database import attempt, endpoint, insert_row, message, outbox

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
_SECOND = 1000


class DueMessage(NamedTuple):
    """A message that is due.

    Attributes:
        id: Its number.
        attempt: The number of the attempt to make, from 1.
        event: Name of the event.
        resource: Id of what it is about.
        url: Where it goes.
        body: The bytes to sign and send.
        secrets: The endpoint's signing secrets, the newest first.
    """

    id: int
    attempt: int
    event: str
    resource: str
    url: str
    body: bytes
    secrets: Sequence[str]


class Result(NamedTuple):
    """What came of an attempt.

    Attributes:
        status: The HTTP status that was answered; ``None`` when nothing was.
        milliseconds: How long it took.
        fault: What chaos did to it.
        error: Why it failed, where there was no answer.
    """

    status: int | None
    milliseconds: int
    fault: str | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        """Whether the endpoint has acknowledged it."""
        return self.error is None and self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - success


def record_event(  # noqa: PLR0913 - what an event is made of
    connection: Connection,
    event: str,
    resource: str,
    *,
    now: int,
    due_at: int | None = None,
    fields: dict[str, object] | None = None,
) -> int:
    """Write an event, and a message of it for each endpoint.

    Args:
        connection: The transaction of what it tells of.
        event: Its name.
        resource: The id of what it is about.
        now: Unix milliseconds; ``ts`` is the second of ``due_at``.
        due_at: When it happens and is sent; now when ``None``.
        fields: More than the three documented fields.

    Returns:
        The number of the event.
    """
    happens = now if due_at is None else due_at
    # As PHP's json_encode with JSON_UNESCAPED_SLASHES writes it (vendor document, "Webhooks & Signing").
    content = {"event": event, "id": resource, "ts": happens // _SECOND, **(fields or {})}
    body = json.dumps(content, separators=(",", ":")).encode()
    number = insert_row(connection, outbox, event=event, resource=resource, body=body, created_at=happens)
    _address(connection, number, happens)
    return number


def resend_event(connection: Connection, number: int, now: int) -> bool:
    """Send an event once more to each endpoint, and return whether there is such an event."""
    known = connection.execute(select(outbox.c.id).where(outbox.c.id == number)).scalar() is not None
    if known:
        _address(connection, number, now)
    return known


def _address(connection: Connection, number: int, due_at: int) -> None:
    to_each = select(literal(number), endpoint.c.id, literal(PENDING), literal(due_at), literal(0))
    connection.execute(
        insert(message).from_select(["outbox_id", "endpoint_id", "state", "due_at", "attempts"], to_each)
    )


def due_messages(connection: Connection, now: int, *, limit: int, without: Collection[int] = ()) -> list[DueMessage]:
    """Return messages that are due, the oldest first.

    Args:
        connection: A transaction.
        now: Unix milliseconds.
        limit: How many at most.
        without: Numbers of messages that are being sent.
    """
    due = (
        select(
            message.c.id,
            message.c.attempts,
            endpoint.c.url,
            outbox.c.event,
            outbox.c.resource,
            outbox.c.body,
            endpoint.c.secret,
            endpoint.c.old_secret,
            endpoint.c.old_secret_expires,
        )
        .select_from(message.join(outbox).join(endpoint))
        .where(message.c.state == PENDING, message.c.due_at <= now, message.c.id.not_in(without))
        .order_by(message.c.due_at, message.c.id)
        .limit(limit)
    )
    found: list[DueMessage] = []
    for row in connection.execute(due):
        old = row.old_secret if row.old_secret is not None and now < row.old_secret_expires else None
        secrets = (row.secret,) if old is None else (row.secret, old)
        found.append(DueMessage(row.id, row.attempts + 1, row.event, row.resource, row.url, row.body, secrets))
    return found


def next_due(connection: Connection) -> int | None:
    """Return when the next message is due, Unix milliseconds; ``None`` when nothing is to be sent."""
    return connection.execute(select(func.min(message.c.due_at)).where(message.c.state == PENDING)).scalar()


def settle(connection: Connection, number: int, result: Result, *, now: int, delay: float | None) -> None:
    """Write down what came of an attempt.

    Args:
        connection: A transaction.
        number: The message.
        result: What came of it.
        now: Unix milliseconds.
        delay: Seconds until the next attempt, if it was not delivered; ``None`` when there is none.
    """
    connection.execute(
        insert(attempt).values(
            message_id=number,
            at=now,
            status=result.status,
            milliseconds=result.milliseconds,
            chaos=result.fault,
            error=result.error,
        )
    )
    state = DELIVERED if result.delivered else FAILED if delay is None else PENDING
    due_at = now + int((delay or 0) * _SECOND)
    connection.execute(
        update(message)
        .where(message.c.id == number, message.c.state == PENDING)
        .values(state=state, due_at=due_at, attempts=message.c.attempts + 1)
    )


def states(connection: Connection) -> dict[str, int]:
    """Return how many messages are in each state."""
    counts = select(message.c.state, func.count().label("number")).group_by(message.c.state)
    found: dict[str, int] = {row.state: row.number for row in connection.execute(counts)}
    return {state: found.get(state, 0) for state in (PENDING, DELIVERED, FAILED)}


def delivery_log(connection: Connection, *, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """Return messages, the newest first, each with its attempts; for the sandbox's own controls.

    Args:
        connection: A transaction.
        limit: How many at most.
        before: Only messages with a lower number.
    """
    page = (
        select(
            message.c.id,
            message.c.state,
            message.c.attempts,
            message.c.due_at,
            endpoint.c.url,
            outbox.c.id.label("event_id"),
            outbox.c.event,
            outbox.c.resource,
        )
        .select_from(message.join(outbox).join(endpoint))
        .order_by(message.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        page = page.where(message.c.id < before)
    found: dict[int, dict[str, Any]] = {
        row["id"]: {**row, "attempts": []} for row in connection.execute(page).mappings()
    }
    made = select(attempt).where(attempt.c.message_id.in_(found)).order_by(attempt.c.id)
    for row in connection.execute(made).mappings():
        fields = dict(row)
        del fields["id"]
        found[fields.pop("message_id")]["attempts"].append(fields)
    return list(found.values())
