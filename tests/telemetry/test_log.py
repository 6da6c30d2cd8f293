"""What is told: through structlog where it is configured, else on a standard logger, and never a secret."""

from __future__ import annotations

import ast
import asyncio
import logging
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from support import NOW, SECRET, headers_of, payload, request_of

import roovet_webhooks
from roovet_webhooks import Delivery, DropDelivery, Event, RetryLater, WebhookReceiver, telemetry
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.receiving.attempt import log_context
from roovet_webhooks.telemetry import instrumentation
from roovet_webhooks.telemetry.catalog import BOUND, DELIVERY_FIELDS, EVENTS, FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roovet_webhooks import WebhookRequest


@pytest.fixture
def configured() -> Iterator[list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    def keep(_logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        events.append({"level": method, **event})
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    try:
        yield events
    finally:
        structlog.reset_defaults()


def test_the_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "roovet_webhooks")
    telemetry.log_event("delivery.handled", delivery="dlv_1", note="100 %s %d")
    telemetry.log_event("delivery.rejected", code="stale")
    telemetry.log_event("receiver.error")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "delivery.handled delivery='dlv_1' note='100 %s %d'"),
        ("WARNING", "delivery.rejected code='stale'"),
        ("ERROR", "receiver.error"),
    ]
    assert vars(caplog.records[0])["roovet"] == {"delivery": "dlv_1", "note": "100 %s %d"}
    assert caplog.records[2].exc_info is None


def test_a_cause_comes_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        int("x")
    except ValueError as error:
        telemetry.log_event("handler.failed", error, handler="f")
    assert caplog.records[0].exc_info is not None
    assert "invalid literal" in caplog.text


def test_levels_are_obeyed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "roovet_webhooks")
    telemetry.log_event("delivery.handled")
    assert not caplog.records


def test_context_variables_of_structlog_come_along(caplog: pytest.LogCaptureFixture) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        telemetry.log_event("delivery.rejected")
    assert vars(caplog.records[0])["roovet"] == {"request_id": "req_1"}


def test_structlog_where_the_application_configures_it_later(
    caplog: pytest.LogCaptureFixture, configured: list[dict[str, Any]]
) -> None:
    telemetry.log_event("delivery.handled", delivery="dlv_1")
    telemetry.log_event("receiver.error", ValueError("x"))
    assert configured[0] == {"level": "info", "event": "delivery.handled", "delivery": "dlv_1"}
    assert isinstance(configured[1]["exc_info"], ValueError)
    assert not caplog.records


def receiver_of(**options: Any) -> WebhookReceiver:  # noqa: ANN401 - a receiver's own arguments
    receiver = WebhookReceiver(SECRET, clock=lambda: NOW, **options)

    @receiver.on("order.failed")
    def fail(event: Event) -> None:
        raise ValueError(event.id)

    @receiver.on("order.created")
    def fulfil(event: Event) -> None: ...

    return receiver


def test_each_end_of_a_delivery_is_told(configured: list[dict[str, Any]]) -> None:
    receiver = receiver_of()
    request = request_of()
    for one in (request, request, request_of(payload("order.failed")), request_of(payload("other")), request_of(b"{}")):
        receiver.receive(one)
    assert [event["event"] for event in configured] == [
        "delivery.handled",
        "delivery.duplicate",
        "handler.failed",
        "delivery.failed",
        "event.unhandled",
        "delivery.ignored",
        "delivery.rejected",
    ]
    handled, failed, rejected = configured[0], configured[2], configured[-1]
    assert handled["event_type"] == "order.created"
    assert handled["secret"] == handled["tenant"] == handled["endpoint"] == "default"
    assert handled["duration"] >= 0
    assert failed["handler"].endswith("fail")
    assert rejected["code"] == "invalid_envelope"
    assert rejected["evidence"] == {"param": "event"}


@pytest.mark.usefixtures("configured")
def test_a_log_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def full(_logger: object, _method: str, _event: object) -> str:
        raise OSError(28, "No space left on device")

    structlog.configure(processors=[full])
    receiver = receiver_of()
    request = request_of()
    assert [receiver.receive(request).status for _ in range(2)] == [200, 200]
    assert receiver.receive(request_of(b"{}")).status == 400
    assert [record.getMessage() for record in caplog.records] == [
        "log.failed event='delivery.handled'",
        "log.failed event='delivery.duplicate'",
        "log.failed event='delivery.rejected'",
    ]


# What is told of a delivery that a worker is to run: that it was stored, to whoever wants to know


@pytest.fixture
def storing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookReceiver]:
    """Yield a receiver of an application that does not use OpenTelemetry: its log is all that it tells."""
    monkeypatch.setattr(instrumentation, "_otel", lambda: None)
    inbox = SQLInbox(f"sqlite:///{tmp_path / 'roovet.db'}")
    yield receiver_of(inbox=inbox)
    inbox.close()


def stores(receiver: WebhookReceiver) -> None:
    """See that a receiver stores a delivery, and knows its copy."""
    request = request_of()
    assert [receiver.receive(request).body for _ in range(2)] == [b'{"status":"stored"}', b'{"status":"duplicate"}']


@pytest.mark.parametrize(
    ("level", "told"),
    [("DEBUG", ["delivery.stored", "delivery.duplicate"]), ("INFO", ["delivery.duplicate"]), ("WARNING", [])],
)
def test_the_standard_logger_is_told_what_was_stored(
    storing: WebhookReceiver, caplog: pytest.LogCaptureFixture, level: str, told: list[str]
) -> None:
    caplog.set_level(level, "roovet_webhooks")
    stores(storing)
    assert [record.getMessage().split()[0] for record in caplog.records] == told


@pytest.mark.parametrize(
    ("wrapper", "told"),
    [
        (structlog.make_filtering_bound_logger(logging.DEBUG), ["delivery.stored", "delivery.duplicate"]),
        (structlog.make_filtering_bound_logger(logging.INFO), ["delivery.duplicate"]),
        (structlog.stdlib.BoundLogger, ["delivery.stored", "delivery.duplicate"]),  # these two do not say
        (structlog.BoundLogger, ["delivery.stored", "delivery.duplicate"]),
    ],
    ids=["debug", "info", "stdlib", "generic"],
)
def test_structlog_is_told_what_was_stored(
    storing: WebhookReceiver,
    configured: list[dict[str, Any]],
    wrapper: type[Any],
    told: list[str],
) -> None:
    structlog.configure(wrapper_class=wrapper)
    stores(storing)
    assert [event["event"] for event in configured] == told


@pytest.mark.usefixtures("configured")
def test_a_log_that_cannot_be_opened_changes_nothing(
    storing: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> object:
        raise OSError(28, "No space left on device")

    structlog.configure(logger_factory=full)
    stores(storing)
    assert [record.getMessage() for record in caplog.records] == [
        "log.failed event='delivery.stored'",
        "log.failed event='delivery.duplicate'",
    ]


# The table of events


PACKAGE = Path(roovet_webhooks.__file__).parent
TELLS = {"log_event", "ended"}


def told_in(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield the event and the fields of each call that logs by a name written out."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TELLS:
            first = node.args[0] if node.args else None  # a file has a tell() as well
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, {keyword.arg for keyword in node.keywords if keyword.arg is not None}


def test_what_the_package_tells_is_in_the_table() -> None:
    calls = [call for path in sorted(PACKAGE.rglob("*.py")) for call in told_in(path)]
    assert len(calls) >= 10
    for event, fields in calls:
        row = EVENTS[event]
        # `ended` makes two fields of an error, and gives a metric its skew.
        known = {*row.fields, *(DELIVERY_FIELDS if row.verified else ()), "error", "skew"}
        assert fields <= known, event


def test_every_field_of_the_table_is_explained() -> None:
    assert tuple(log_context(receiver_of().open(request_of()))) == DELIVERY_FIELDS
    used = {name for row in EVENTS.values() for name in row.fields} | set(DELIVERY_FIELDS)
    assert used == FIELDS.keys()
    assert set(BOUND) == (set(DELIVERY_FIELDS) - {"key", "secret"}) | {"handler"}


def test_an_event_that_nobody_knows_is_told_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    telemetry.log_event("delivery.unheard_of")
    assert [record.getMessage() for record in caplog.records] == ["log.failed event='delivery.unheard_of'"]


# The application's own log lines, while a handler runs


def bound(configured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the application's own lines said of their delivery."""
    return [{name: event.get(name) for name in BOUND} for event in configured if event["event"] == "mine"]


def receive(receiver: WebhookReceiver, request: WebhookRequest, server: str) -> int:
    if server == "sync":
        return receiver.receive(request).status
    return asyncio.run(receiver.receive_async(request)).status


@pytest.mark.parametrize("server", ["sync", "async"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_line_of_a_handler_says_what_it_is_about(configured: list[dict[str, Any]], server: str, kind: str) -> None:
    log = structlog.get_logger("shop")
    receiver = WebhookReceiver(SECRET, clock=lambda: NOW, endpoint="shop")

    def handler(_event: Event) -> None:
        log.info("mine")

    async def handler_async(_event: Event) -> None:
        await asyncio.sleep(0)
        log.info("mine")

    receiver.on("order.*", name="first")(handler if kind == "def" else handler_async)
    receiver.on("order.*", name="second")(handler if kind == "def" else handler_async)
    request = request_of()
    assert receive(receiver, request, server) == 200
    delivery = receiver.open(request)
    about = {
        "event_type": "order.created",
        "resource": delivery.event.id,
        "delivery": delivery.id,
        "endpoint": "shop",
        "tenant": "default",
        "attempt": 1,
    }
    assert bound(configured) == [{**about, "handler": "first"}, {**about, "handler": "second"}]
    log.info("mine")
    assert bound(configured)[-1] == dict.fromkeys(BOUND)


@pytest.mark.parametrize("server", ["sync", "async"])
@pytest.mark.parametrize("error", [ValueError, RetryLater, DropDelivery, SystemExit], ids=lambda error: error.__name__)
def test_it_says_so_no_longer_whatever_the_handler_did(
    configured: list[dict[str, Any]], server: str, error: type[BaseException]
) -> None:
    receiver = WebhookReceiver(SECRET, clock=lambda: NOW)

    @receiver.on("order.*")
    def handler(_event: Event) -> None:
        raise error

    @receiver.on_error
    def hook(_error: Exception, _delivery: Delivery) -> None:
        structlog.get_logger().info("mine")

    with structlog.contextvars.bound_contextvars(tenant="the application's own", request_id="req_1"):
        with suppress(SystemExit):
            receive(receiver, request_of(), server)
        assert structlog.contextvars.get_contextvars() == {"tenant": "the application's own", "request_id": "req_1"}
    own = {**dict.fromkeys(BOUND), "tenant": "the application's own"}
    assert bound(configured) == ([own] if error is ValueError else [])


def test_without_structlog_nothing_is_bound() -> None:
    seen: list[dict[str, Any]] = []
    receiver = WebhookReceiver(SECRET, clock=lambda: NOW)
    receiver.on("*", name="handler")(lambda _event: seen.append(structlog.contextvars.get_contextvars()))
    assert receiver.receive(request_of()).status == 200
    assert seen == [{}]


@pytest.mark.usefixtures("configured")
def test_a_run_that_ends_in_another_context_ends_all_the_same() -> None:
    # What the garbage collector does with a coroutine that nobody awaits any more.
    run = telemetry.HandlerRun("handler", dict.fromkeys(DELIVERY_FIELDS, "x"))
    copy_context().run(run.__enter__)
    run.__exit__(None, None, None)
    assert structlog.contextvars.get_contextvars() == {}


def test_a_handler_that_ends_early_says_how_long_it_ran(configured: list[dict[str, Any]]) -> None:
    receiver_of().receive(request_of(payload("order.failed")))
    failed = next(event for event in configured if event["event"] == "handler.failed")
    assert 0 < failed["duration"] < 60
    assert failed.keys() >= {*DELIVERY_FIELDS, "handler"}


def test_no_log_has_a_secret_a_signature_or_a_body(
    caplog: pytest.LogCaptureFixture, configured: list[dict[str, Any]]
) -> None:
    receiver = receiver_of()
    raw = payload(note="s3cr3t-body")
    digest = headers_of(raw)["X-Roovet-Signature"].split("v1=")[1]
    for logged_by_structlog in (True, False):
        if not logged_by_structlog:
            structlog.reset_defaults()
            caplog.set_level(logging.DEBUG)
        good = headers_of(raw)
        for headers in (
            good,
            {**good, "X-Roovet-Signature": good["X-Roovet-Signature"].upper()},
            {**good, "X-Roovet-Timestamp": "1"},
            {**good, "X-Roovet-Signature": f"t=1,v1={digest}"},
            {"Content-Type": "application/json"},
        ):
            receiver.receive(request_of(raw, headers))
        receiver.receive(request_of(raw + b" ", good))
        receiver.receive(request_of(payload("order.failed", note="s3cr3t-body")))
    told = repr(configured) + caplog.text + repr([vars(record) for record in caplog.records])
    assert len(configured) >= 7
    assert len(caplog.records) >= 7
    for hidden in (SECRET, "s3cr3t-body", digest, digest.upper()):
        assert hidden not in told
