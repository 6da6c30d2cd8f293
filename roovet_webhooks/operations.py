"""What operators do with inboxes, for every command line: find, describe, replay, purge, check."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import msgspec
import structlog

from roovet_webhooks import telemetry
from roovet_webhooks.errors import ConfigurationError, DeliveryNotFound, InboxError, InvalidTransition
from roovet_webhooks.findings import Finding
from roovet_webhooks.inbox.factory import inbox_of
from roovet_webhooks.inbox.serving import REMEDY, mismatches
from roovet_webhooks.inbox.states import State
from roovet_webhooks.receiving.bridge import SyncBridge, run

if TYPE_CHECKING:
    from roovet_webhooks.findings import Level
    from roovet_webhooks.inbox.protocol import Answer, DurableInbox
    from roovet_webhooks.inbox.records import Query, RecordedDelivery, Stats
    from roovet_webhooks.inbox.sql import SQLInbox
    from roovet_webhooks.receiving.receiver import WebhookReceiver

LOG_LEVELS = ("debug", "info", "warning", "error")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PAGE = 500
_AT_ONCE = 100
_DIGITS = 19  # a longer number is more than a database's integer holds
_BRIDGE = SyncBridge()

# Which inbox


def inbox_at(url: str) -> DurableInbox:
    """Return the durable inbox at a database URL. Unlike a receiver it makes none: neither a file nor tables.

    Raises:
        ConfigurationError: No inbox can be there, or none is.
        MissingExtraError: SQLAlchemy is not installed.
    """
    inbox = cast("SQLInbox", inbox_of(url))
    if (missing := inbox.missing()) is not None:
        inbox.close()
        message = f"there is no inbox there: {missing}; a receiver's first start makes it"
        raise ConfigurationError(message)
    return inbox


def inbox_in(receivers: Iterable[WebhookReceiver]) -> DurableInbox:
    """Return the one durable inbox that receivers share.

    Raises:
        ConfigurationError: One keeps its deliveries in memory, or they have several, or there is no receiver.
    """
    inboxes = {id(receiver.inbox): receiver.inbox for receiver in receivers}
    if not inboxes:
        message = "there is no receiver with a durable inbox: mount one, or name it with --app module:receiver"
        raise ConfigurationError(message)
    if len(inboxes) > 1:
        message = f"the receivers have {len(inboxes)} inboxes; name the endpoint that is meant"
        raise ConfigurationError(message)
    (inbox,) = inboxes.values()
    if not inbox.durable:
        message = (
            "the receiver keeps its deliveries in memory, where nobody else can see them; give it a durable inbox: "
            "inbox='sqlite:///roovet.db'"
        )
        raise ConfigurationError(message)
    return cast("DurableInbox", inbox)


def log_to_stderr(level: str, *, but: str | None = None) -> None:
    """Write the log to standard error, with times, unless the application has set up logging of its own.

    Args:
        level: From which level on, such as ``info``.
        but: Name of a logger that has a handler of its own already, and that is not to be written twice.
    """
    ours = logging.getLogger(telemetry.LOGGER_NAME)
    if logging.getLogger().handlers or ours.handlers or structlog.is_configured():
        return
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    if but is not None:
        for handler in logging.getLogger().handlers:
            handler.addFilter(lambda record: record.name.partition(".")[0] != but)


def close_quietly(inbox: DurableInbox) -> None:
    """Close an inbox at the end of a command. That its store is away by then is no fault of the command."""
    with suppress(InboxError):
        inbox.close()


# Which deliveries


def moment(text: str, *, now: float) -> float:
    """Return the time that a text says, Unix seconds: ``30m`` ago, an ISO 8601 date or time, or Unix seconds.

    A time without a zone is meant in UTC.

    Raises:
        ValueError: It says none.

    Example:
        >>> moment("90m", now=1_762_782_800.0)
        1762777400.0
        >>> moment("2025-11-10T13:53:20Z", now=0.0)
        1762782800.0
    """
    if (ago := re.fullmatch(r"(\d+)([smhdw])", text)) is not None:
        return now - int(ago[1]) * _UNITS[ago[2]]
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return float(text)
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is no time: write 30m, 12h or 7d for so long ago, 2026-01-31T08:00Z, or Unix seconds"
        raise ValueError(message) from None
    return (then if then.tzinfo is not None else then.replace(tzinfo=UTC)).timestamp()


def number_of(inbox: DurableInbox, which: str) -> int:
    """Return the number of the delivery that a person means by its number or its ``dlv_…`` id.

    Raises:
        DeliveryNotFound: The inbox has no such delivery, or the text is neither.
    """
    if which.startswith("dlv_"):
        return inbox.number_of(which)
    if not (which.isascii() and which.isdigit() and len(which) < _DIGITS):
        message = (
            f"{which!r} is neither the number of a delivery nor an id such as dlv_8824ab35c4e7f0299e1e308bc77590de"
        )
        raise DeliveryNotFound(message)
    return int(which)


def iter_deliveries(inbox: DurableInbox, query: Query) -> Iterator[RecordedDelivery]:
    """Yield recorded deliveries, the newest first, page by page; as many as the query's limit allows."""
    left = query.limit
    while page := inbox.find(msgspec.structs.replace(query, limit=min(left, _PAGE))):
        yield from page
        left -= len(page)
        if not left or len(page) < _PAGE:
            break
        query = msgspec.structs.replace(query, before=page[-1].number)


# What they are


def to_dict(record: RecordedDelivery) -> dict[str, object]:
    """Return what is known about a recorded delivery as plain values for JSON: times in Unix seconds, no body."""
    fields: dict[str, object] = {"id": record.id, **msgspec.structs.asdict(record)}
    identity = record.identity
    del fields["identity"]
    fields.update(endpoint=identity.endpoint, tenant=identity.tenant, key=identity.key.hex())
    fields["history"] = [
        {**msgspec.structs.asdict(attempt), "runs": [msgspec.structs.asdict(run) for run in attempt.runs]}
        for attempt in record.history
    ]
    return cast("dict[str, object]", msgspec.to_builtins(fields))


def stats_to_dict(stats: Stats, *, now: float) -> dict[str, object]:
    """Return the counts of an endpoint as plain values for JSON."""
    waiting = None if stats.oldest_due is None else round(max(0.0, now - stats.oldest_due), 3)
    fields = {**msgspec.structs.asdict(stats), "oldest_due_seconds": waiting}
    return cast("dict[str, object]", msgspec.to_builtins(fields))


# What is done to them

Doing: TypeAlias = Callable[[int], "Answer[None]"]


class Refused(NamedTuple):
    """A delivery to which something could not be done."""

    number: int
    reason: str


def replaying(inbox: DurableInbox, *, confirmed: bool) -> Doing:
    """Return the step that replays a delivery; ``confirmed`` as `DurableInbox.replay` takes it."""
    return lambda number: inbox.replay(number, confirmed=confirmed)


def purging(inbox: DurableInbox) -> Doing:
    """Return the step that erases a delivery's body and error."""
    return inbox.purge


def apply_each(
    inbox: DurableInbox,
    numbers: Sequence[int],
    step: Doing,
    *,
    on_progress: Callable[[int], None] = lambda _count: None,
) -> list[Refused]:
    """Take a step with each of many deliveries, and return those that it was refused for.

    Steps that are taken together share a transaction, where the inbox has it so.

    Args:
        inbox: The inbox.
        numbers: Which deliveries.
        step: What to do.
        on_progress: Called after each lot with how many deliveries have been gone through.

    Raises:
        InboxUnavailable: The store cannot be used; what was done until then is done.
    """
    refused: list[Refused] = []
    rest = iter(numbers)
    total = 0
    while lot := list(islice(rest, _AT_ONCE)):
        answers: list[tuple[int, Answer[None] | InboxError]] = []
        for number in lot:
            try:
                answers.append((number, step(number)))
            except (InvalidTransition, DeliveryNotFound) as error:
                answers.append((number, error))
        for number, answer in answers:
            try:
                waited(inbox, answer)
            except (InvalidTransition, DeliveryNotFound) as error:
                refused.append(Refused(number, str(error)))
        total += len(lot)
        on_progress(total)
    return refused


def waited(inbox: DurableInbox, answer: Any) -> Any:  # noqa: ANN401 - whatever the answer is
    """Return an answer once it is there, or raise it."""
    if isinstance(answer, InboxError):
        raise answer
    return run(_BRIDGE.wait(inbox, lambda: answer))


# Whether all is well

LATE = 60.0
SKEW = 5.0


def check(inbox: DurableInbox, receivers: Iterable[WebhookReceiver] = ()) -> Iterator[Finding]:
    """Check a store, its workers and what waits in it, and report problems.

    Args:
        inbox: The inbox.
        receivers: Receivers of the inbox, if they are known. Then their engines are checked too, and whether workers
            have their handlers.

    Yields:
        Findings with a ``subject``; their ``level`` is ``ok`` if there is no problem.
    """
    receivers = list(receivers)
    try:
        inbox.open()
        yield from _store(inbox)
        yield from _deliveries(inbox.stats(), time.time())
        yield from _workers(inbox, receivers)
    except ConfigurationError as error:
        remedy = "run the version of roovet-webhooks that the tables need"
        yield _problem("store", "store_unusable", str(error), remedy)
    except InboxError as error:
        remedy = "start the database, or correct its URL, permissions or disk; until then deliveries are answered 503"
        yield _problem("store", error.code, str(error), remedy)
    for receiver in receivers:
        if receiver.engine is not None:
            subject = f"{receiver.engine.name} of {receiver.endpoint}"
            problems = list(receiver.engine.faults())
            yield from (replace(problem, subject=subject) for problem in problems)
            if not problems:
                yield _ok(subject, "it can be reached, and its settings are right")


def _ok(subject: str, message: str) -> Finding:
    return Finding("ok", message, level="ok", subject=subject)


def _problem(subject: str, code: str, message: str, remedy: str, level: Level = "error") -> Finding:
    return Finding(code, message, remedy, level=level, subject=subject)


def _store(inbox: DurableInbox) -> Iterator[Finding]:
    # This writes, so a file or a database that can only be read is found here.
    waited(inbox, inbox.heartbeat(inbox.owner, ()))
    before = time.time()
    health = inbox.health()
    after = time.time()
    yield _ok("store", f"{health.store} can be read and written; its schema is version {health.schema}")
    if health.fault is None:
        yield _ok("durability", "what is acknowledged is on disk")
    else:
        yield _problem("durability", "not_durable", health.fault, "change it before the next delivery is accepted")
    if health.full is None:
        yield _ok("room", "new deliveries are accepted")
    else:
        remedy = "free some disk, or let workers reduce the backlog; new deliveries are answered 503 until then"
        yield _problem("room", "inbox_full", health.full, remedy)
    skew = max(before - health.clock, health.clock - after, 0.0)
    if skew <= SKEW:
        yield _ok("clock", "this machine and the store agree")
    else:
        message = f"this machine and the store differ by {skew:.0f} s"
        remedy = "synchronise the clocks (NTP): signatures are checked by this machine's, leases by the store's"
        yield _problem("clock", "clock_off", message, remedy, "warning")


def _deliveries(stats: Sequence[Stats], now: float) -> Iterator[Finding]:
    if not stats:
        yield _ok("deliveries", "none has been recorded yet")
    for one in stats:
        waits = max(0.0, now - one.oldest_due) if one.oldest_due is not None else 0.0
        if one.workers:
            yield _ok(f"workers of {one.endpoint}", f"{one.workers} in the last minute")
        else:
            message = "no worker has written a heartbeat for a minute"
            remedy = "start one: roovet-webhooks worker module:receiver, flask roovet worker or manage.py roovet_worker"
            yield _problem(f"workers of {one.endpoint}", "no_worker", message, remedy)
        if waits > LATE:
            message = f"{one.counts[State.READY]} waiting, the first for {format_duration(waits)}"
            remedy = (
                "start more workers, or raise --concurrency; check whether a handler has become slow, or a delivery "
                "holds back later ones of its resource"
            )
            yield _problem(f"backlog of {one.endpoint}", "backlog", message, remedy, "warning")
        else:
            yield _ok(f"backlog of {one.endpoint}", f"{one.counts[State.READY]} waiting")
        if one.unhandled:
            reasons = "; ".join(one.unhandled_reasons)
            message = (
                f"{one.unhandled} wait for a handler that the processes which claimed them did not have: {reasons}"
            )
            yield _problem(f"handlers of {one.endpoint}", "handlers", message, REMEDY)
        if one.crashed:
            were = "was running when its" if one.crashed == 1 else "were running when their"
            message = f"{one.crashed} {were} process ended; each runs alone until it is done"
            remedy = "see `inbox list`: was a worker killed, or does a handler crash it or exhaust its memory?"
            yield _problem(f"crashes of {one.endpoint}", "crashed", message, remedy, "warning")
        if one.dead_letters:
            remedy = (
                "find the cause with `inbox list --state dead`, correct it, then `inbox replay` or `inbox purge` them"
            )
            yield _problem(
                f"dead letters of {one.endpoint}",
                "dead_letters",
                f"{one.dead_letters} dead",
                remedy,
                "warning",
            )


def _workers(inbox: DurableInbox, receivers: Iterable[WebhookReceiver]) -> Iterator[Finding]:
    # What an engine runs is run by processes that write no heartbeat.
    served = [receiver.served() for receiver in receivers if receiver.inbox is inbox and receiver.engine is None]
    yield from mismatches(waited(inbox, inbox.workers()), served)


def format_duration(seconds: float) -> str:
    """Say how long something has lasted, in the largest unit of which there is one.

    Example:
        >>> format_duration(5), format_duration(150), format_duration(7200), format_duration(200_000)
        ('5 s', '2 min', '2 h', '2 d')
    """
    sizes = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    unit, size = next((pair for pair in sizes if seconds >= pair[1]), sizes[-1])
    return f"{seconds // size:.0f} {unit}"
