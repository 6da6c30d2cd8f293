"""Everything that is told, as data: log events, the fields they have, attributes, spans and metrics.

The documentation draws its tables from these, and a test holds both equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


class LogEvent(NamedTuple):
    """One thing that can happen.

    Attributes:
        level: How it is logged.
        when: When it is logged, as a clause.
        fields: Its fields beside those of `DELIVERY_FIELDS`.
        verified: Whether it is about a delivery that was verified, and so has the fields of `DELIVERY_FIELDS`.
        traceback: Whether an exception comes with it.
    """

    level: Level
    when: str
    fields: tuple[str, ...] = ()
    verified: bool = True
    traceback: bool = False


# What is said of a request that was refused.
_REFUSAL = ("code", "reason", "status", "findings", "evidence", "endpoint", "path")

EVENTS: Mapping[str, LogEvent] = {
    "delivery.handled": LogEvent("info", "all handlers succeeded", ("duration",)),
    "delivery.ignored": LogEvent("info", "no handler wanted it", ("duration",)),
    "delivery.dropped": LogEvent("info", "a handler raised `DropDelivery`", ("duration",)),
    "delivery.stored": LogEvent("debug", "it is on disk, for a worker"),
    "delivery.too_old": LogEvent("warning", "it was recorded as dead: its event is older than the inbox remembers"),
    "delivery.duplicate": LogEvent("info", "it was recorded before"),
    "delivery.in_flight": LogEvent("warning", "a copy came while it was being handled", ("code", "reason")),
    "delivery.retry_later": LogEvent(
        "warning",
        "it was not done because a handler raised `RetryLater`, and was answered 503",
        ("code", "reason", "duration"),
    ),
    "delivery.failed": LogEvent(
        "warning", "it was not done, and was answered 500 or 503", ("code", "reason", "duration")
    ),
    "delivery.unhandled": LogEvent(
        "info", "it was given back, since another process has a handler of it", ("code", "reason", "duration")
    ),
    "delivery.dead": LogEvent(
        "error",
        "no attempt is left, or none could succeed; replay it when its cause is mended",
        ("code", "reason", "duration"),
    ),
    "delivery.rejected": LogEvent("warning", "a request was refused", _REFUSAL, verified=False),
    "handler.failed": LogEvent(
        "error", "a handler raised, or its type refused the event", ("handler", "duration"), traceback=True
    ),
    "handler.failed_after_commit": LogEvent(
        "error",
        "a handler raised after its transaction had been committed, and so has succeeded",
        ("handler", "duration"),
        traceback=True,
    ),
    "handler.dropped": LogEvent("info", "a handler raised `DropDelivery`", ("handler", "reason", "duration")),
    "handler.retry_later": LogEvent("warning", "a handler raised `RetryLater`", ("handler", "reason", "duration")),
    "handler.missing": LogEvent(
        "error",
        "a handler that was registered when the delivery was accepted is not registered here; told once a minute",
        ("handlers", "reason"),
    ),
    "event.unhandled": LogEvent(
        "warning",
        "no handler wants events of this name; told once for each name",
        ("event_type", "nearest", "endpoint"),
        verified=False,
    ),
    "handler.blocked_loop": LogEvent(
        "warning",
        "a coroutine handler kept its event loop from running anything else for a second or more: `seconds` so far, "
        "and once more when it is over",
        ("handler", "seconds"),
    ),
    "hook.failed": LogEvent(
        "error", "an `on_error` or `on_rejected` hook raised", ("hook",), verified=False, traceback=True
    ),
    "receiver.not_ready": LogEvent(
        "error",
        "a request could not be taken, and it was not the sender's fault",
        _REFUSAL,
        verified=False,
        traceback=True,
    ),
    "receiver.example_secret": LogEvent(
        "warning",
        "a server starts with a signing secret out of this documentation, with which anybody can sign",
        ("secret", "endpoint"),
        verified=False,
    ),
    "receiver.error": LogEvent("error", "a fault that nobody foresaw", ("endpoint",), verified=False, traceback=True),
    "inbox.unavailable": LogEvent(
        "error", "the store could not be opened at startup", ("code", "reason", "endpoint"), verified=False
    ),
    "inbox.no_worker": LogEvent(
        "error", "deliveries are accepted, and no worker has been heard of for a minute", ("endpoint",), verified=False
    ),
    "inbox.lease_expired": LogEvent(
        "warning", "the process that held a delivery is gone; it is free again", ("number",), verified=False
    ),
    "inbox.poisoned": LogEvent(
        "error", "a delivery has taken its process with it once too often, and is dead", ("number",), verified=False
    ),
    "inbox.pruned": LogEvent(
        "info", "what has been kept long enough was erased", ("bodies", "records"), verified=False
    ),
    "inbox.clock_doubted": LogEvent(
        "warning",
        "the clock is over a day ahead of the newest delivery; nothing is erased by it until it has kept step with "
        "monotonic time for an hour",
        ("ahead",),
        verified=False,
    ),
    "inbox.maintenance_failed": LogEvent(
        "error",
        "claims could not be renewed, or nothing could be tidied, for now; told once an outage",
        ("code", "reason"),
        verified=False,
        traceback=True,
    ),
    "worker.started": LogEvent("info", "a worker begins", ("endpoints", "concurrency"), verified=False),
    "worker.stopping": LogEvent("info", "it was told to stop", ("running", "grace"), verified=False),
    "worker.stopped": LogEvent("info", "it has stopped", ("endpoints", "released"), verified=False),
    "worker.handed_over": LogEvent(
        "info", "deliveries were handed to an engine", ("count", "endpoint"), verified=False
    ),
    "worker.store_down": LogEvent("error", "the store cannot be used", ("reason", "endpoint"), verified=False),
    "worker.store_back": LogEvent("warning", "the store can be used again", ("seconds", "endpoint"), verified=False),
    "worker.broker_down": LogEvent(
        "error", "the engine's broker cannot be used", ("reason", "endpoint"), verified=False
    ),
    "worker.broker_back": LogEvent("warning", "the broker can be used again", ("seconds", "endpoint"), verified=False),
    "worker.no_thread": LogEvent(
        "warning",
        "the system grants no thread; what needs one waits, and a thread is asked for again",
        ("reason",),
        verified=False,
    ),
    "worker.differs": LogEvent(
        "warning",
        "another worker of an endpoint has other handlers, or handles other events",
        ("reason", "endpoint"),
        verified=False,
    ),
    "worker.error": LogEvent("error", "a fault that nobody foresaw", traceback=True),
    "worker.failed": LogEvent("error", "a worker inside of a server has ended", verified=False, traceback=True),
    "engine.unknown_endpoint": LogEvent(
        "error",
        "a task came for an endpoint that no receiver here has",
        ("engine", "endpoint", "number"),
        verified=False,
    ),
    "engine.error": LogEvent("error", "a fault that nobody foresaw", ("engine",), traceback=True),
    "otel.failed": LogEvent(
        "error", "OpenTelemetry raised, or a processor or sampler of yours", verified=False, traceback=True
    ),
}


class Field(NamedTuple):
    """One field of a log event.

    Attributes:
        meaning: What it is.
        attribute: The same as an attribute of a span, where it is one.
    """

    meaning: str
    attribute: str | None = None


# The names of others are OpenTelemetry's own (its semantic conventions for messaging and HTTP); where these have
# none, the name begins with roovet.webhook.
FIELDS: Mapping[str, Field] = {
    "event_type": Field("name of the event, such as `order.created`", "roovet.webhook.event.type"),
    "resource": Field("`id` of the event: the resource it is about", "roovet.webhook.resource.id"),
    "delivery": Field("`delivery.id`, the same for every copy", "messaging.message.id"),
    "key": Field("`delivery.key`: SHA-256 of the body, or of what `dedupe` returned", "roovet.webhook.delivery.key"),
    "endpoint": Field("the receiver", "messaging.destination.name"),
    "tenant": Field("whose secret verified it", "roovet.webhook.tenant.name"),
    "secret": Field("name of the secret that verified it", "roovet.webhook.secret.name"),
    "attempt": Field("which run of its handlers this is, from 1", "roovet.webhook.attempt"),
    "handler": Field("name of the handler", "roovet.webhook.handler.name"),
    "duration": Field("seconds: of a handler its run, of a delivery from its record to the answer"),
    "code": Field("stable identifier of the reason", "error.type"),
    "reason": Field("the reason, as a sentence"),
    "status": Field("HTTP status of the answer", "http.response.status_code"),
    "evidence": Field("what else is known of a refusal, such as its `skew` in seconds"),
    "path": Field("path of the request, at most 200 characters"),
    "handlers": Field("names of the handlers that are missing"),
    "nearest": Field("the registered name or pattern that is most like it"),
    "hook": Field("name of the hook"),
    "findings": Field("codes of what is wrong with a refused delivery, the most likely cause first"),
    "number": Field("number of the delivery in its inbox"),
    "endpoints": Field("the receivers whose deliveries a worker runs"),
    "concurrency": Field("how many handlers run at a time"),
    "running": Field("how many deliveries are being handled"),
    "grace": Field("seconds that they have to end"),
    "released": Field("how many were given back to the inbox"),
    "count": Field("how many deliveries"),
    "bodies": Field("how many bodies of done deliveries were erased"),
    "records": Field("how many records of ended deliveries were removed"),
    "ahead": Field("seconds by which the clock is ahead of the newest delivery"),
    "seconds": Field("how long it lasted"),
    "engine": Field("name of the engine"),
}

# What every log event about a verified delivery says of it.
DELIVERY_FIELDS = ("event_type", "resource", "delivery", "key", "endpoint", "tenant", "secret", "attempt")
# What a log line of the application's own says while a handler runs. Each costs as much as two fields of a line, on
# every run, so there are no more than tell what it is about; `delivery` leads to the rest.
BOUND = ("event_type", "resource", "delivery", "endpoint", "tenant", "attempt", "handler")

# What no field of the log says by itself.
SYSTEM = "messaging.system"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
OUTCOME = "roovet.webhook.outcome"

ATTRIBUTES: Mapping[str, str] = {name: field.attribute for name, field in FIELDS.items() if field.attribute}

# What each attribute is.
MEANINGS: Mapping[str, str] = {
    SYSTEM: "`roovet`",
    OPERATION: "`receive` or `process`",
    OPERATION_TYPE: "`process`, on runs of handlers",
    **{field.attribute: field.meaning for field in FIELDS.values() if field.attribute},
    OUTCOME: (
        "of a receipt `stored`, `too_old`, `handled`, `ignored`, `dropped`, `duplicate`, `in_flight`, `retry_later`, "
        "`unhandled`, `failed`, `dead`, `rejected`, or `opened` in a guarded view; of a run `handled`, `dropped`, "
        "`retry_later`, `failed`, or `interrupted`"
    ),
    ATTRIBUTES["code"]: "`code` of the refusal or failure; of a run that failed, the class of what the handler raised",
}

SCOPE = "roovet_webhooks"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"


class Span(NamedTuple):
    """One kind of span.

    Attributes:
        name: Its name, with the endpoint for the placeholder.
        kind: OpenTelemetry's kind of span.
        covers: What it covers.
        attributes: All that it may have.
    """

    name: str
    kind: Literal["INTERNAL", "CONSUMER"]
    covers: str
    attributes: tuple[str, ...]


_MESSAGE = tuple(ATTRIBUTES[name] for name in DELIVERY_FIELDS)

SPANS: Mapping[str, Span] = {
    "receive": Span(
        "receive {endpoint}",
        "INTERNAL",
        "a request, from its headers to its answer",
        (SYSTEM, OPERATION, *_MESSAGE, OUTCOME, ATTRIBUTES["status"], ATTRIBUTES["code"]),
    ),
    "process": Span(
        "process {endpoint}",
        "CONSUMER",
        "one run of one handler",
        (SYSTEM, OPERATION, OPERATION_TYPE, *_MESSAGE, ATTRIBUTES["handler"], OUTCOME, ATTRIBUTES["code"]),
    ),
}


class Metric(NamedTuple):
    """One instrument.

    Attributes:
        name: Its name.
        kind: OpenTelemetry's kind of instrument.
        unit: Its unit, in UCUM.
        description: What it counts or measures.
        attributes: Those it has beside `SYSTEM`, `OPERATION` and the endpoint. All of them are bounded: by the
            code, by the handlers, or by the names that the application gives to its secrets.
    """

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    description: str
    attributes: tuple[str, ...] = ()


METRICS: Mapping[str, Metric] = {
    "consumed": Metric(
        "messaging.client.consumed.messages",
        "counter",
        "{message}",
        "Verified deliveries, by what became of them.",
        (OUTCOME, ATTRIBUTES["code"]),
    ),
    "rejected": Metric(
        "roovet.webhook.rejected.requests",
        "counter",
        "{request}",
        "Requests that were refused or could not be taken, by the reason.",
        (ATTRIBUTES["code"],),
    ),
    "verified": Metric(
        "roovet.webhook.verified.messages",
        "counter",
        "{message}",
        "Verified deliveries, by the secret that matched.",
        (ATTRIBUTES["secret"],),
    ),
    "process": Metric(
        "messaging.process.duration",
        "histogram",
        "s",
        "Duration of one run of one handler.",
        (ATTRIBUTES["handler"], OUTCOME, ATTRIBUTES["code"]),
    ),
    "skew": Metric(
        "roovet.webhook.clock.skew",
        "gauge",
        "s",
        "Signed time of the last new delivery, less our clock.",
    ),
}

# What the conventions advise for a processing time, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
