"""Spans and metrics for an application that uses OpenTelemetry: names and attributes are those of `tables`.

They follow the semantic conventions for messaging and, where there is an answer, for HTTP. Where these leave a
choice:

- Roovet pushes. The conventions' operation type ``receive`` and its span of kind CLIENT are for consumers that
  pull, so the receipt of a delivery is a span of kind INTERNAL, inside whatever server span there is, and its
  operation has a name but no type. Each run of a handler is a ``process`` span of kind CONSUMER.
- An error is its ``error.type`` and a status. No message, no stack trace and no span event: an exception's text may
  quote a body, and a trace is kept by others. As in the conventions for HTTP servers, only a failure of ours (5xx)
  makes the status an error: a stranger must not be able to fill a store of failed traces.
- No attribute of a metric is unbounded: neither the event's name, the resource nor the tenant is one.

Whatever OpenTelemetry raises is logged, and changes nothing.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, Self, cast

from opentelemetry import context as otel_context, metrics, trace

from roovet_webhooks._version import __version__
from roovet_webhooks.errors import WebhookError
from roovet_webhooks.telemetry import log
from roovet_webhooks.telemetry.catalog import (
    ATTRIBUTES,
    BUCKETS,
    DELIVERY_FIELDS,
    METRICS,
    OPERATION,
    OPERATION_TYPE,
    OUTCOME,
    SCHEMA_URL,
    SCOPE,
    SPANS,
    SYSTEM,
)
from roovet_webhooks.telemetry.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from types import TracebackType

    Attributes = Mapping[str, str | bool | int | float]

P = ParamSpec("P")

_SERVER_ERROR = 500
_ENDPOINT, _CODE, _STATUS = ATTRIBUTES["endpoint"], ATTRIBUTES["code"], ATTRIBUTES["status"]
_HANDLER, _SECRET = ATTRIBUTES["handler"], ATTRIBUTES["secret"]
_DELIVERY_ATTRIBUTES = [ATTRIBUTES[name] for name in DELIVERY_FIELDS]
_NOTHING: Mapping[str, int] = {}
_KINDS = {name: trace.SpanKind[span.kind] for name, span in SPANS.items()}


class Instruments:
    """The tracer, and one instrument for each row of `METRICS`.

    Args:
        tracer_provider: The application's own, global one when ``None``.
        meter_provider: Likewise.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self.tracer: trace.Tracer = trace.get_tracer(SCOPE, __version__, tracer_provider, SCHEMA_URL)
        meter = metrics.get_meter(SCOPE, __version__, meter_provider, SCHEMA_URL)

        def counter(key: str) -> metrics.Counter:
            return meter.create_counter(METRICS[key].name, METRICS[key].unit, METRICS[key].description)

        self.consumed: metrics.Counter = counter("consumed")
        self.rejected: metrics.Counter = counter("rejected")
        self.verified: metrics.Counter = counter("verified")
        duration, skew = METRICS["process"], METRICS["skew"]
        self.duration: metrics.Histogram = meter.create_histogram(
            duration.name, duration.unit, duration.description, explicit_bucket_boundaries_advisory=BUCKETS
        )
        self.skew: metrics._Gauge = meter.create_gauge(skew.name, skew.unit, skew.description)


# Of the global providers. They may be set later: what the API gives out until then passes on to them.
instruments: Instruments = Instruments()


def harmless(function: Callable[P, None]) -> Callable[P, None]:
    """Decorate what calls OpenTelemetry: should that raise, it is logged, and the delivery goes on."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - an exporter must not change what becomes of a delivery
            log.log_event("otel.failed", error)

    return guarded


def _common(operation: str, endpoint: object) -> dict[str, str]:
    return {SYSTEM: "roovet", OPERATION: operation, _ENDPOINT: str(endpoint)}


def _message(context: Mapping[str, object]) -> dict[str, str | int]:
    """Return the fields of `DELIVERY_FIELDS`, which are in its order, as attributes."""
    return cast("dict[str, str | int]", dict(zip(_DELIVERY_ATTRIBUTES, context.values(), strict=True)))


def error_type(error: BaseException) -> str:
    """Return what ``error.type`` says of an error: the code of one of ours, else the name of its class."""
    if isinstance(error, WebhookError):
        return error.code
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _Active:
    """A span that is the current one from its start to its end."""

    __slots__ = ("span", "token")

    def __init__(self) -> None:
        self.span: trace.Span = trace.INVALID_SPAN
        self.token: Token[otel_context.Context] | None = None

    @harmless
    def start(self, name: str, endpoint: object, attributes: Attributes) -> None:
        full_name = SPANS[name].name.format(endpoint=endpoint)
        self.span = instruments.tracer.start_span(full_name, kind=_KINDS[name], attributes=attributes)
        self.token = otel_context.attach(trace.set_span_in_context(self.span))

    @harmless
    def says(self, attributes: Attributes) -> None:
        # It may be over: a client that goes away ends it, and not the work.
        if self.span.is_recording():
            self.span.set_attributes(attributes)

    @harmless
    def failed(self, kind: str, *, ours: bool) -> None:
        self.says({_CODE: kind})
        if ours and self.span.is_recording():
            self.span.set_status(trace.StatusCode.ERROR)

    @harmless
    def end(self) -> None:
        if self.token is not None:
            otel_context.detach(self.token)
        self.span.end()


class TracedReceipt(Receipt):
    """A receipt that is a span as well, and counts."""

    __slots__ = ("_active", "_common")

    traces = True

    def __init__(self, endpoint: str) -> None:
        self._active = _Active()
        self._common = _common("receive", endpoint)

    def __enter__(self) -> Self:
        """Start the span."""
        self._active.start("receive", self._common[_ENDPOINT], self._common)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span. One that was cancelled has no answer, and is no error."""
        if isinstance(error, Exception):
            ours = not isinstance(error, WebhookError) or error.status >= _SERVER_ERROR
            self._active.failed(error_type(error), ours=ours)
        self._active.end()

    def ended(
        self,
        event: str,
        context: Mapping[str, object],
        *,
        duration: float | None = None,
        error: WebhookError | None = None,
        skew: float | None = None,
    ) -> None:
        """Log the outcome, and count it."""
        super().ended(event, context, duration=duration, error=error)
        self._became(
            event.removeprefix("delivery."), context, skew, error, {_STATUS: 200 if error is None else error.status}
        )

    def opened(self, context: Mapping[str, object], skew: float) -> None:
        """Count it."""
        self._became("opened", context, skew)

    @harmless
    def _became(
        self,
        outcome: str,
        context: Mapping[str, object],
        skew: float | None,
        error: WebhookError | None = None,
        answer: Mapping[str, int] = _NOTHING,
    ) -> None:
        message = _message(context)
        self._active.says({**message, OUTCOME: outcome, **answer})
        attributes = {**self._common, OUTCOME: outcome}
        if error is not None:
            attributes[_CODE] = error.code
            self._active.failed(error.code, ours=error.status >= _SERVER_ERROR)
        instruments.consumed.add(1, attributes)
        instruments.verified.add(1, {**self._common, _SECRET: message[_SECRET]})
        if skew is not None:
            instruments.skew.set(skew, self._common)

    @harmless
    def refused(self, error: WebhookError) -> None:
        """Count the reason."""
        self._active.says({OUTCOME: "rejected", _STATUS: error.status})
        self._active.failed(error.code, ours=error.status >= _SERVER_ERROR)
        instruments.rejected.add(1, {**self._common, _CODE: error.code})


class Process:
    """The span of one run of a handler, from its making on.

    Args:
        handler: Name of the handler.
        context: The fields of `DELIVERY_FIELDS`.
    """

    __slots__ = ("_active", "_attributes")

    def __init__(self, handler: str, context: Mapping[str, object]) -> None:
        self._active = _Active()
        self._attributes: dict[str, str] = {}
        self._start(handler, context)

    @harmless
    def _start(self, handler: str, context: Mapping[str, object]) -> None:
        endpoint = context["endpoint"]
        self._attributes = {**_common("process", endpoint), _HANDLER: handler}
        self._active.start("process", endpoint, {**_message(context), **self._attributes, OPERATION_TYPE: "process"})

    def end(self, outcome: str, error: BaseException | None, duration: float) -> None:
        """End the span and record the duration, seconds."""
        self._record(outcome, error, duration)
        self._active.end()

    @harmless
    def _record(self, outcome: str, error: BaseException | None, duration: float) -> None:
        attributes = {**self._attributes, OUTCOME: outcome}
        self._active.says({OUTCOME: outcome})
        if outcome == "failed" and error is not None:
            attributes[_CODE] = error_type(error)
            self._active.failed(attributes[_CODE], ours=True)
        # While the span is the current one, so that an exemplar can point to it.
        instruments.duration.record(duration, attributes)
