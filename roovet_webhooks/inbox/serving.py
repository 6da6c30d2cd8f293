"""Whether all who work on an endpoint serve the same: what two heartbeats, or a heartbeat and a receiver, differ in."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from roovet_webhooks.findings import Finding
from roovet_webhooks.routing import covers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from roovet_webhooks.findings import Level
    from roovet_webhooks.inbox.protocol import Served
    from roovet_webhooks.inbox.records import WorkerRecord

REMEDY = (
    "while a deployment rolls this passes by itself; else give two receivers two endpoints (endpoint='…'), start every "
    "worker with the same module, and give a renamed handler its old name (on(…, name='…'))"
)
_SHOWN = 5


def _finding(endpoint: str, message: str, level: Level) -> Finding:
    subject = f"handlers of {endpoint}"
    return Finding("handlers", message, REMEDY, {"endpoint": endpoint}, level, subject)


def mismatches(workers: Sequence[WorkerRecord], receivers: Iterable[Served] = ()) -> Iterator[Finding]:
    """Compare the workers of each endpoint with each other, and with what receivers accept.

    Args:
        workers: Those that are alive. What one that does not say so serves is not known.
        receivers: What this process accepts, for others to handle.
    """
    workers = sorted(workers, key=lambda worker: worker.endpoint)
    for _, of_endpoint in groupby(workers, key=lambda worker: worker.endpoint):
        first, *others = of_endpoint
        seen = {_served(first)}
        for other in others:
            if first.handlers is not None and other.handlers is not None and _served(other) not in seen:
                seen.add(_served(other))
                yield _finding(first.endpoint, _difference(first, other), "warning")
    for receiver in receivers:
        mine = [worker for worker in workers if worker.endpoint == receiver.endpoint]
        if mine and all(worker.handlers is not None for worker in mine):
            yield from _without_worker(mine, receiver)


def listed(names: Collection[str]) -> str:
    """Return some names for a sentence."""
    shown = ", ".join(list(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def same(one: Served, other: Served) -> bool:
    """Return whether two receivers have the same handlers for the same events."""
    return set(one.handlers) == set(other.handlers) and set(one.patterns) == set(other.patterns)


def _served(worker: WorkerRecord) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(worker.handlers or ()), frozenset(worker.patterns or ())


def _difference(one: WorkerRecord, other: WorkerRecord) -> str:
    sides = ((one.owner, _more(one, other)), (other.owner, _more(other, one)))
    return "; ".join(f"{owner} alone has {what}" for owner, what in sides if what)


def _more(one: WorkerRecord, other: WorkerRecord) -> str:
    """Say what one has that the other has not."""
    handlers, patterns = _served(other)
    more = {
        "the handler": [name for name in one.handlers or () if name not in handlers],
        "the event": [name for name in one.patterns or () if name not in patterns],
    }
    return " for ".join(f"{kind} {listed(names)}" for kind, names in more.items() if names)


def _without_worker(workers: Iterable[WorkerRecord], receiver: Served) -> Iterator[Finding]:
    served = [_served(worker) for worker in workers]
    handlers = frozenset[str]().union(*(names for names, _ in served))
    patterns = frozenset[str]().union(*(names for _, names in served))
    names = [name for name in receiver.handlers if name not in handlers]
    events = [name for name in receiver.patterns if not any(covers(pattern, name) for pattern in patterns)]
    if names or events:
        what = f"the handler {listed(names)}" if names else f"a handler for {listed(events)}"
        message = f"this application has {what}, and no worker has it"
        yield _finding(receiver.endpoint, message, "error")
