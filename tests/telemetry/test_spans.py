"""Spans and metrics, through a real SDK: right names, right parents, bounded attributes, and never a secret."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import flask
import httpx
import pytest
from conformance.mounts import configure_django
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.metrics import messaging_metrics
from opentelemetry.semconv.attributes import error_attributes, http_attributes
from opentelemetry.semconv.schemas import Schemas
from support import NOW, OTHER_SECRET, PATH, SECRET, clock, headers_of, payload, request_of

from roovet_webhooks import (
    Delivery,
    DropDelivery,
    Event,
    RetryLater,
    Secret,
    Tenant,
    WebhookError,
    WebhookReceiver,
    WebhookRequest,
    WebhookResponse,
)
from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.flask import webhook_blueprint
from roovet_webhooks.telemetry import catalog, instrumentation, spans

configure_django()

from django.test import AsyncClient, Client, override_settings  # noqa: E402 - Django has to be configured before
from django.urls import path  # noqa: E402 - Django has to be configured before

from roovet_webhooks.django import dispatch_view  # noqa: E402 - Django has to be configured before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Server = Literal["sync", "async"]

MARK = "only-the-body-says-this"
# These are counted in the tests of the inbox.
OF_A_DURABLE_INBOX = ("stored", "too_old", "dead", "unhandled")
UNSET, ERROR = trace.StatusCode.UNSET, trace.StatusCode.ERROR


class Point(NamedTuple):
    """One data point of a metric."""

    attributes: Mapping[str, object]
    value: float


class Watched:
    """What an application with an SDK sees."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.instruments = spans.Instruments(self.provider, MeterProvider([self._reader]))
        self.tracer = self.provider.get_tracer("the application")

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def all_spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def exported(self) -> str:
        """Return everything that leaves the process, as text."""
        data = self._reader.get_metrics_data()
        return "".join([*(span.to_json() for span in self.all_spans()), data.to_json() if data else ""])

    def points(self, key: str) -> list[Point]:
        data = self._reader.get_metrics_data()
        found = [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == catalog.METRICS[key].name
            for point in metric.data.data_points
        ]
        return [
            Point(dict(point.attributes or {}), cast("Any", point).value if hasattr(point, "value") else point.count)
            for point in found
        ]

    def counted(self, key: str, attribute: str) -> dict[object, float]:
        """Return the values of a metric by one of its attributes."""
        return {point.attributes.get(attribute): point.value for point in self.points(key)}

    def skew(self) -> float | None:
        points = self.points("skew")
        return points[0].value if points else None


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    monkeypatch.setattr(spans, "instruments", watched.instruments)
    return watched


@pytest.fixture(params=["sync", "async"])
def server(request: pytest.FixtureRequest) -> Server:
    return cast("Server", request.param)


def receive(receiver: WebhookReceiver, server: Server, request: WebhookRequest | None = None) -> WebhookResponse:
    request = request_of() if request is None else request
    return receiver.receive(request) if server == "sync" else asyncio.run(receiver.receive_async(request))


def receiver_of(handler: Callable[..., object] | None = None, secret: Any = SECRET, **options: Any) -> WebhookReceiver:  # noqa: ANN401 - a receiver's own
    receiver = WebhookReceiver(secret, **{"clock": clock, **options})
    receiver.on("order.*", name="shop.handler")(handler or (lambda _event: None))
    return receiver


# Names


def test_the_names_are_those_of_the_conventions() -> None:
    assert catalog.SYSTEM == messaging_attributes.MESSAGING_SYSTEM
    assert catalog.OPERATION == messaging_attributes.MESSAGING_OPERATION_NAME
    assert catalog.OPERATION_TYPE == messaging_attributes.MESSAGING_OPERATION_TYPE
    theirs = {name: value for name, value in catalog.ATTRIBUTES.items() if not value.startswith("roovet.webhook.")}
    assert theirs == {
        "delivery": messaging_attributes.MESSAGING_MESSAGE_ID,
        "endpoint": messaging_attributes.MESSAGING_DESTINATION_NAME,
        "code": error_attributes.ERROR_TYPE,
        "status": http_attributes.HTTP_RESPONSE_STATUS_CODE,
    }
    assert catalog.METRICS["consumed"].name == messaging_metrics.MESSAGING_CLIENT_CONSUMED_MESSAGES
    assert catalog.METRICS["process"].name == messaging_metrics.MESSAGING_PROCESS_DURATION
    assert Schemas.V1_44_0.value == catalog.SCHEMA_URL
    # No name is a namespace of another, which the conventions forbid.
    names = {*catalog.ATTRIBUTES.values(), catalog.SYSTEM, catalog.OPERATION, catalog.OPERATION_TYPE, catalog.OUTCOME}
    assert not [(one, other) for one in names for other in names if other.startswith(f"{one}.")]


def test_the_scope_says_whose_they_are(watched: Watched) -> None:
    receive(receiver_of(), "sync")
    for span in watched.all_spans():
        scope = span.instrumentation_scope
        assert scope is not None
        assert (scope.name, scope.schema_url) == ("roovet_webhooks", catalog.SCHEMA_URL)
        assert scope.version


# Spans


def test_a_delivery_that_is_handled(watched: Watched, server: Server) -> None:
    receiver = receiver_of(endpoint="shop")
    request = request_of()
    assert receive(receiver, server, request).status == 200
    delivery = receiver.open(request)
    spans = watched.spans()
    assert [span.name for span in watched.all_spans()[:2]] == ["process shop", "receive shop"]
    about = {
        "messaging.system": "roovet",
        "messaging.destination.name": "shop",
        "messaging.message.id": delivery.id,
        "roovet.webhook.event.type": "order.created",
        "roovet.webhook.resource.id": delivery.event.id,
        "roovet.webhook.delivery.key": delivery.key,
        "roovet.webhook.tenant.name": "default",
        "roovet.webhook.secret.name": "default",
        "roovet.webhook.attempt": 1,
        "roovet.webhook.outcome": "handled",
    }
    process, received = spans["process shop"], watched.all_spans()[1]
    assert process.attributes == {
        **about,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "roovet.webhook.handler.name": "shop.handler",
    }
    assert received.attributes == {**about, "messaging.operation.name": "receive", "http.response.status_code": 200}
    assert (process.kind, received.kind) == (trace.SpanKind.CONSUMER, trace.SpanKind.INTERNAL)
    assert process.status.status_code is received.status.status_code is UNSET
    assert set(process.attributes) <= set(catalog.SPANS["process"].attributes)
    assert set(received.attributes) <= set(catalog.SPANS["receive"].attributes)


def parents_of(watched: Watched, *names: str) -> list[str | None]:
    spans = watched.spans()
    by_id = {span.context.span_id: span.name for span in spans.values()}
    return [by_id[parent.span_id] if (parent := spans[name].parent) else None for name in names]


CHAIN = ("server", "receive default", "process default", "of the handler")


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_every_span_is_inside_the_one_it_belongs_to(watched: Watched, server: Server, kind: str) -> None:
    threads: list[int] = []

    def handler(_event: Event) -> None:
        threads.append(threading.get_ident())
        with watched.tracer.start_as_current_span("of the handler"):
            pass

    async def handler_async(event: Event) -> None:
        await asyncio.sleep(0)
        handler(event)

    receiver = receiver_of(handler if kind == "def" else handler_async)
    with watched.tracer.start_as_current_span("server", kind=trace.SpanKind.SERVER):
        assert receive(receiver, server).status == 200
        assert trace.get_current_span().get_span_context() != trace.INVALID_SPAN_CONTEXT
    assert parents_of(watched, *CHAIN) == [None, *CHAIN[:-1]]
    assert not trace.get_current_span().is_recording()
    # Sync handlers of an async server run in a thread, async ones of a sync server on a loop in one.
    assert (threads == [threading.get_ident()]) is ((server, kind) in {("sync", "def"), ("async", "async def")})


def post_to_flask(receiver: WebhookReceiver, raw: bytes) -> int:
    app = flask.Flask(__name__)
    app.register_blueprint(webhook_blueprint(receiver, path=PATH))
    return app.test_client().post(PATH, data=raw, headers=headers_of(raw)).status_code


def post_to_asgi(receiver: WebhookReceiver, raw: bytes) -> int:
    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(cast("Any", WebhookApp(receiver)))
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.post(PATH, content=raw, headers=headers_of(raw))

    return asyncio.run(post()).status_code


def post_to_django(receiver: WebhookReceiver, raw: bytes) -> int:
    with override_settings(ROOT_URLCONF=urls_of(dispatch_view(receiver))):
        return Client().post(PATH, raw, "application/json", headers=headers_of(raw)).status_code


def post_to_async_django(receiver: WebhookReceiver, raw: bytes) -> int:
    async def post() -> int:
        headers = {name: value for name, value in headers_of(raw).items() if name != "Content-Type"}
        response = await AsyncClient().post(PATH, raw, "application/json", headers=headers)
        return response.status_code

    with override_settings(ROOT_URLCONF=urls_of(dispatch_view(receiver, asynchronous=True))):
        return asyncio.run(post())


def urls_of(view: Any) -> ModuleType:  # noqa: ANN401 - a view, sync or async
    urls = ModuleType("urls_of_a_trace")
    vars(urls)["urlpatterns"] = [path(PATH.lstrip("/"), view)]
    return urls


@pytest.mark.parametrize("post", [post_to_flask, post_to_asgi, post_to_django, post_to_async_django])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_it_is_the_same_in_every_framework(
    watched: Watched, post: Callable[[WebhookReceiver, bytes], int], kind: str
) -> None:
    def handler(_event: Event) -> None:
        with watched.tracer.start_as_current_span("of the handler"):
            pass

    async def handler_async(event: Event) -> None:
        handler(event)

    receiver = receiver_of(handler if kind == "def" else handler_async)
    with watched.tracer.start_as_current_span("server", kind=trace.SpanKind.SERVER):
        assert post(receiver, payload()) == 200
    assert parents_of(watched, *CHAIN) == [None, *CHAIN[:-1]]


def test_each_handler_has_a_span_of_its_own(watched: Watched, server: Server) -> None:
    receiver = receiver_of()
    receiver.on("order.created", name="shop.other")(lambda _event: None)
    receive(receiver, server)
    names = [(span.attributes or {}).get("roovet.webhook.handler.name") for span in watched.all_spans()]
    assert names == ["shop.handler", "shop.other", None]
    assert {span.parent and span.parent.span_id for span in watched.all_spans()[:2]} == {
        watched.all_spans()[2].context.span_id
    }


# What became of a delivery


class OutOfStock(Exception):
    """An error of the application's."""


def raising(error: BaseException | type[BaseException]) -> Callable[[Event], None]:
    def handler(_event: Event) -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "outcome", "kind"),
    [
        (ValueError(MARK), "failed", "ValueError"),
        (OutOfStock(MARK), "failed", f"{__name__}.OutOfStock"),
        (WebhookError(MARK), "failed", "webhook_error"),
        (RetryLater(5, MARK), "retry_later", None),
        (DropDelivery(MARK), "dropped", None),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Exception) else None,
)
def test_a_handler_that_raises(
    watched: Watched, server: Server, error: Exception, outcome: str, kind: str | None
) -> None:
    status = receive(receiver_of(raising(error)), server).status
    process, received = watched.spans()["process default"], watched.spans()["receive default"]
    told = process.attributes or {}
    assert (told["roovet.webhook.outcome"], told.get("error.type")) == (outcome, kind)
    assert process.status.status_code is (ERROR if kind else UNSET)
    assert (received.attributes or {})["roovet.webhook.outcome"] == outcome
    assert received.status.status_code is (UNSET if status == 200 else ERROR)
    # No words of the application's leave in a span.
    assert not process.events
    assert process.status.description is None
    assert MARK not in watched.exported()
    point = watched.points("process")[0]
    assert point.attributes == {
        "messaging.system": "roovet",
        "messaging.operation.name": "process",
        "messaging.destination.name": "default",
        "roovet.webhook.handler.name": "shop.handler",
        "roovet.webhook.outcome": outcome,
        **({"error.type": kind} if kind else {}),
    }
    assert point.value == 1


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_hook_may_put_the_exception_into_the_span_of_the_receipt(watched: Watched, server: Server, kind: str) -> None:
    receiver = receiver_of(raising(ValueError("told on purpose")))

    def keep(error: Exception, _delivery: Delivery) -> None:
        trace.get_current_span().record_exception(error)

    async def keep_async(error: Exception, delivery: Delivery) -> None:
        keep(error, delivery)

    receiver.on_error(keep if kind == "def" else keep_async)
    receive(receiver, server)
    kept = watched.spans()["receive default"].events
    assert [(event.attributes or {})["exception.message"] for event in kept] == ["told on purpose"]


def test_a_type_that_refuses_an_event_is_a_failed_run(watched: Watched, server: Server) -> None:
    class Strict(Event, event="order.created"):
        amount: int

    receiver = WebhookReceiver(SECRET, clock=clock)
    receiver.on(Strict, name="strict")(lambda _event: None)
    assert receive(receiver, server).status == 500
    assert (watched.spans()["process default"].attributes or {})["error.type"] == "event_validation_error"


def test_each_outcome_is_counted(watched: Watched, server: Server) -> None:
    raised: dict[str, BaseException] = {
        "order.failed": ValueError(),
        "order.later": RetryLater(),
        "order.dropped": DropDelivery(),
    }

    def handler(event: Event) -> None:
        if event.event in raised:
            raise raised[event.event]
        if event.event == "order.copied":
            receive(receiver, "sync", copied)

    receiver = receiver_of(handler)
    copied = request_of(payload("order.copied"))
    for name in ("order.created", *raised, "wallet.none"):
        receive(receiver, server, request_of(payload(name)))
    for _ in range(2):
        receive(receiver, server, copied)
    assert watched.counted("consumed", "roovet.webhook.outcome") == {
        "handled": 2,
        "ignored": 1,
        "failed": 1,
        "retry_later": 1,
        "dropped": 1,
        "in_flight": 1,
        "duplicate": 1,
    }
    assert watched.counted("consumed", "error.type") == {
        None: 1,
        "handler_failed": 1,
        "retry_later": 1,
        "delivery_in_flight": 1,
    }
    events = {name.partition(".")[2] for name in catalog.EVENTS if name.startswith("delivery.")}
    assert watched.counted("consumed", "roovet.webhook.outcome").keys() == events - {"rejected", *OF_A_DURABLE_INBOX}


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        ({"X-Roovet-Signature": "t=1"}, "malformed_signature", 400),
        ({"X-Roovet-Signature": f"t={NOW},v1={'0' * 64}"}, "signature_mismatch", 400),
        ({"X-Roovet-Signature": f"t=1,v1={'0' * 64}"}, None, 400),
        ({"Content-Type": "text/plain"}, "unsupported_media_type", 415),
    ],
    ids=["malformed", "forged", "stale", "media type"],
)
def test_a_stranger_is_counted_and_makes_no_error(
    watched: Watched, server: Server, change: dict[str, str], code: str | None, status: int
) -> None:
    receiver = receiver_of()
    rejected: list[str] = []
    receiver.on_rejected(lambda error, _request: rejected.append(error.code))
    raw = payload()
    assert receive(receiver, server, request_of(raw, {**headers_of(raw), **change})).status == status
    code = code or rejected[0]
    received = watched.spans()["receive default"]
    assert received.attributes == {
        "messaging.system": "roovet",
        "messaging.operation.name": "receive",
        "messaging.destination.name": "default",
        "roovet.webhook.outcome": "rejected",
        "http.response.status_code": status,
        "error.type": code,
    }
    assert received.status.status_code is UNSET
    assert watched.counted("rejected", "error.type") == {code: 1}
    assert not watched.points("consumed")
    assert not watched.points("verified")
    assert watched.skew() is None


def broken(*_: object) -> Any:  # noqa: ANN401 - whatever is asked for
    message = "broken"
    raise OSError(message)


@pytest.mark.parametrize(
    ("options", "code", "status"),
    [({"secret": broken}, "tenant_lookup_failed", 503), ({"clock": broken}, "webhook_error", 500)],
    ids=["resolver", "clock"],
)
def test_a_failure_of_ours_is_an_error(
    watched: Watched, server: Server, options: dict[str, Any], code: str, status: int
) -> None:
    assert receive(receiver_of(**options), server).status == status
    received = watched.spans()["receive default"]
    assert received.status.status_code is ERROR
    assert (received.attributes or {})["error.type"] == code
    assert watched.counted("rejected", "error.type") == {code: 1}


def test_the_duration_has_the_buckets_that_the_conventions_advise(watched: Watched) -> None:
    receive(receiver_of(), "sync")
    data = watched._reader.get_metrics_data()
    assert data is not None
    points = [
        point
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == "messaging.process.duration"
        for point in metric.data.data_points
    ]
    assert isinstance(points[0], HistogramDataPoint)
    assert tuple(points[0].explicit_bounds) == catalog.BUCKETS
    assert 0 < points[0].sum < 60


# Guards


def opened(receiver: WebhookReceiver, server: Server, request: WebhookRequest) -> Delivery:
    return receiver.open(request) if server == "sync" else asyncio.run(receiver.open_async(request))


def test_a_guarded_view(watched: Watched, server: Server) -> None:
    receiver = receiver_of(clock=lambda: NOW + 5.5)
    opened(receiver, server, request_of())
    received = watched.spans()["receive default"]
    assert (received.attributes or {})["roovet.webhook.outcome"] == "opened"
    assert watched.counted("consumed", "roovet.webhook.outcome") == {"opened": 1}
    assert watched.skew() == -5.5
    with pytest.raises(WebhookError):
        opened(receiver, server, request_of(headers={}))
    assert watched.counted("rejected", "error.type") == {"unsupported_media_type": 1}
    assert watched.all_spans()[1].status.status_code is UNSET


def test_a_guard_that_breaks(watched: Watched, server: Server) -> None:
    with pytest.raises(OSError, match="broken"):
        opened(receiver_of(clock=broken), server, request_of())
    received = watched.spans()["receive default"]
    assert (received.attributes or {})["error.type"] == "OSError"
    assert received.status.status_code is ERROR


# Secrets and clocks


def test_which_secret_matches_is_counted(watched: Watched, server: Server) -> None:
    receiver = receiver_of(secret=[Secret(SECRET, name="new"), Secret(OTHER_SECRET, name="old")])
    for secret in (SECRET, SECRET, OTHER_SECRET):
        raw = payload()
        assert receive(receiver, server, request_of(raw, headers_of(raw, secret=secret))).status == 200
    assert watched.counted("verified", "roovet.webhook.secret.name") == {"new": 2, "old": 1}


def test_a_drifting_clock_is_seen_before_it_refuses(watched: Watched, server: Server) -> None:
    times = [float(NOW)]
    receiver = receiver_of(clock=lambda: times[-1])
    seen: list[float | None] = []
    for drift in (0, 60, 299.25, -299):
        times.append(NOW + drift)
        assert receive(receiver, server).status == 200
        seen.append(watched.skew())
    assert seen == [0, -60, -299.25, 299]


def test_nobody_but_the_sender_moves_the_skew(watched: Watched, server: Server) -> None:
    times = [float(NOW)]
    receiver = receiver_of(raising(ValueError()), clock=lambda: times[-1])
    captured, failed = request_of(payload("wallet.none")), request_of()
    receive(receiver, server, captured)
    receive(receiver, server, failed)
    assert watched.skew() == 0
    times.append(NOW + 200.0)
    # A copy, a retry, one that is stale although its signature is right, and one that is forged.
    assert receive(receiver, server, captured).status == 200
    assert receive(receiver, server, failed).status == 500
    raw = payload()
    assert receive(receiver, server, request_of(raw, headers_of(raw, timestamp=NOW - 200))).status == 400
    assert receive(receiver, server, request_of(raw + b" ", headers_of(raw, timestamp=NOW + 400))).status == 400
    assert watched.skew() == 0


def test_no_attribute_of_a_metric_grows_with_tenants_events_or_resources(watched: Watched) -> None:
    def tenant(request: WebhookRequest) -> Tenant:
        return Tenant(request.path.strip("/"), SECRET)

    receiver = receiver_of(secret=tenant)
    for name in ("acme", "globex"):
        raw = payload(f"order.{name}")
        assert receiver.receive(request_of(raw, path=f"/{name}")).status == 200
    for key, metric in catalog.METRICS.items():
        points = watched.points(key)
        allowed = {catalog.SYSTEM, catalog.OPERATION, catalog.ATTRIBUTES["endpoint"], *metric.attributes}
        assert all(point.attributes.keys() <= allowed for point in points)
        assert len(points) == (0 if key == "rejected" else 1)
    tenants = {(span.attributes or {}).get("roovet.webhook.tenant.name") for span in watched.all_spans()}
    assert tenants == {"acme", "globex"}


# Requests that go away


def test_a_client_that_goes_away_ends_the_receipt_and_not_the_work(watched: Watched) -> None:
    async def scenario() -> None:
        running, go_on = asyncio.Event(), asyncio.Event()

        async def slow(_event: Event) -> None:
            running.set()
            await go_on.wait()

        receiver = receiver_of(slow)
        task = asyncio.create_task(receiver.receive_async(request_of()))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [span.name for span in watched.all_spans()] == ["receive default"]
        go_on.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())})

    asyncio.run(scenario())
    received = watched.spans()["receive default"]
    assert "http.response.status_code" not in (received.attributes or {})
    assert received.status.status_code is UNSET
    assert [span.name for span in watched.all_spans()] == ["receive default", "process default"]
    assert parents_of(watched, "process default") == ["receive default"]
    assert watched.counted("consumed", "roovet.webhook.outcome") == {"handled": 1}


def test_a_process_that_is_told_to_stop(watched: Watched, server: Server) -> None:
    with pytest.raises(SystemExit):
        receive(receiver_of(raising(SystemExit(3))), server)
    process = watched.spans()["process default"]
    assert (process.attributes or {})["roovet.webhook.outcome"] == "interrupted"
    assert process.status.status_code is UNSET
    assert not trace.get_current_span().is_recording()


# OpenTelemetry that fails


class Raises(SpanProcessor):
    """A processor of the application's that raises."""

    def __init__(self, where: str) -> None:
        self._where = where

    def on_start(self, span: object, parent_context: object = None) -> None:
        if self._where == "start":
            raise OSError(span, parent_context)

    def on_end(self, span: object) -> None:
        if self._where == "end":
            raise OSError(span)


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_processor_that_raises_changes_nothing(
    watched: Watched, server: Server, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    watched.provider.add_span_processor(Raises(where))
    receiver = receiver_of()
    request = request_of()
    assert [receive(receiver, server, request).status for _ in range(2)] == [200, 200]
    assert receive(receiver, server, request_of(headers={})).status == 415
    assert watched.counted("consumed", "roovet.webhook.outcome") == {"handled": 1, "duplicate": 1}
    told = [record for record in caplog.records if record.getMessage() == "otel.failed"]
    assert len(told) == 4
    assert {record.levelname for record in told} == {"ERROR"}
    assert not trace.get_current_span().is_recording()


@pytest.mark.parametrize("part", ["consumed", "rejected", "duration", "skew"])
def test_an_instrument_that_raises_changes_nothing(
    watched: Watched, server: Server, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        add = record = set = staticmethod(broken)

    monkeypatch.setattr(watched.instruments, part, Broken())
    receiver = receiver_of()
    assert receive(receiver, server).status == 200
    assert receive(receiver, server, request_of(headers={})).status == 415
    assert "otel.failed" in caplog.text
    assert len(watched.all_spans()) == 3


def test_a_mistake_of_ours_in_telling_changes_nothing(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    process = spans.Process("handler", {})
    process.end("handled", None, 0.1)
    with spans.TracedReceipt("default") as receipt:
        receipt.ended("delivery.handled", {})
        receipt.opened({}, 0.0)
    assert caplog.text.count("otel.failed") == 3
    assert len(watched.all_spans()) == 1


# What leaves the process


def test_nothing_exported_has_a_secret_a_signature_or_a_body(watched: Watched, server: Server) -> None:
    def handler(event: Event, delivery: Delivery) -> None:
        if event.event == "order.failed":
            raise ValueError(delivery.raw)

    receiver = receiver_of(handler)
    for name in ("order.created", "order.failed", "wallet.none"):
        raw = payload(name, note=MARK)
        digest = headers_of(raw)["X-Roovet-Signature"].partition("v1=")[2]
        for request in (request_of(raw), request_of(raw + b" ", headers_of(raw)), request_of(raw, {})):
            receive(receiver, server, request)
        exported = watched.exported()
        assert "order.created" in exported
        assert not [hidden for hidden in (SECRET, digest, MARK) if hidden in exported]


# Without it


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have OpenTelemetry not imported by anyone."""
    monkeypatch.delitem(sys.modules, "opentelemetry")
    yield
    instrumentation._otel.cache_clear()


@pytest.mark.usefixtures("without")
def test_before_the_application_imports_it_nothing_is_traced(watched: Watched, server: Server) -> None:
    receiver = receiver_of()
    assert receive(receiver, server).status == 200
    assert receive(receiver, server, request_of(headers={})).status == 415
    opened(receiver, server, request_of())
    with pytest.raises(WebhookError):
        opened(receiver, server, request_of(headers={}))
    assert not watched.all_spans()
    assert not watched.points("consumed")


@pytest.mark.parametrize(
    ("error", "told"), [(ImportError("no API"), 0), (TypeError("too old"), 1)], ids=["absent", "old"]
)
def test_an_api_that_cannot_be_used_is_left_alone(
    error: Exception, told: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "roovet_webhooks.telemetry.spans":
                raise error

    monkeypatch.delitem(sys.modules, "roovet_webhooks.telemetry.spans")
    monkeypatch.delattr("roovet_webhooks.telemetry.spans")
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    instrumentation._otel.cache_clear()
    try:
        receiver = receiver_of()
        assert [receive(receiver, "sync").status for _ in range(2)] == [200, 200]
    finally:
        instrumentation._otel.cache_clear()
    assert caplog.text.count("otel.failed") == told


# In a process of its own, whose global providers can be set


PRELUDE = f"""
import sys
from roovet_webhooks import Signer, WebhookReceiver, WebhookRequest
receiver = WebhookReceiver({SECRET!r})
receiver.on("*", name="handler")(lambda event: None)
def deliver(number):
    raw = b'{{"event":"order.created","id":"ord_%d","ts":1}}' % number
    headers = [(name.encode(), value.encode()) for name, value in Signer({SECRET!r}).headers(raw).items()]
    assert receiver.receive(WebhookRequest("POST", "/", headers, raw)).status == 200
"""

WITH_SDK = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
if hasattr(provider, "add_span_processor"):
    provider.add_span_processor(SimpleSpanProcessor(exporter))
def names():
    return [span.name for span in exporter.get_finished_spans()]
"""


@pytest.mark.parametrize(
    ("code", "environment"),
    [
        ("deliver(1); assert not [name for name in sys.modules if name.startswith('opentelemetry')]", {}),
        (
            # The API alone: every call is one that does nothing.
            """
import opentelemetry.trace
deliver(1)
assert 'roovet_webhooks.telemetry.spans' in sys.modules
assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]
""",
            {},
        ),
        (
            # A provider that is set after the first delivery.
            "deliver(1)\n" + WITH_SDK + "deliver(2); trace.set_tracer_provider(provider); deliver(3)\n"
            "assert names() == ['process default', 'receive default'], names()",
            {},
        ),
        (
            WITH_SDK + "trace.set_tracer_provider(provider); deliver(1); assert names() == [], names()",
            {"OTEL_SDK_DISABLED": "true"},
        ),
    ],
    ids=["not imported", "api alone", "provider set later", "disabled"],
)
def test_in_a_process_of_its_own(code: str, environment: dict[str, str]) -> None:
    subprocess.run(  # noqa: S603 - code of this test
        [sys.executable, "-W", "error", "-c", PRELUDE + code], check=True, timeout=60, env=environment
    )
