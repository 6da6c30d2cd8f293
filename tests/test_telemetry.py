"""What is told: through structlog where it is configured, else on a standard logger, and never a secret."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from support import NOW, SECRET, headers_of, payload, request_of

from roovet_webhooks import Event, WebhookReceiver, telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    telemetry.info("delivery.handled", delivery="dlv_1", note="100 %s %d")
    telemetry.warning("delivery.rejected", code="stale")
    telemetry.error("receiver.error")
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
        telemetry.error("handler.failed", error, handler="f")
    assert caplog.records[0].exc_info is not None
    assert "invalid literal" in caplog.text


def test_levels_are_obeyed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "roovet_webhooks")
    telemetry.info("delivery.handled")
    assert not caplog.records


def test_context_variables_of_structlog_come_along(caplog: pytest.LogCaptureFixture) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        telemetry.warning("delivery.rejected")
    assert vars(caplog.records[0])["roovet"] == {"request_id": "req_1"}


def test_structlog_where_the_application_configures_it_later(
    caplog: pytest.LogCaptureFixture, configured: list[dict[str, Any]]
) -> None:
    telemetry.info("delivery.handled", delivery="dlv_1")
    telemetry.error("receiver.error", ValueError("x"))
    assert configured[0] == {"level": "info", "event": "delivery.handled", "delivery": "dlv_1"}
    assert isinstance(configured[1]["exc_info"], ValueError)
    assert not caplog.records


def receiver_of() -> WebhookReceiver:
    receiver = WebhookReceiver(SECRET, clock=lambda: NOW)

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
