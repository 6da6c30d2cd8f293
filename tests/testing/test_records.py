"""`recording`: what became of each request, under the receiver's own settings, and failures that say what happened."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import pytest
from support.shops import LIVE_SECRET, make_receiver, opened

from roovet_webhooks import Event, MissingSignature, OrderCreated, StaleTimestamp, WebhookReceiver
from roovet_webhooks.testing import NOW, PATH, Record, Recorded, recording, signed_request

if TYPE_CHECKING:
    from roovet_webhooks import WebhookResponse


def clock() -> float:
    return float(NOW)


def send(receiver: WebhookReceiver, event: Any, **options: Any) -> WebhookResponse:  # noqa: ANN401 - of signed_request
    return signed_request(event, **{"secret": LIVE_SECRET, **options}).post(receiver)


@pytest.fixture
def receiver() -> WebhookReceiver:
    return make_receiver(clock=clock)


def outcomes(record: Record) -> list[tuple[str, int]]:
    return [(recorded.outcome, recorded.status) for recorded in record.deliveries]


# What is recorded


def test_every_outcome_has_its_word(receiver: WebhookReceiver) -> None:
    with recording(receiver) as record:
        for event in ("order.created", "order.failed", "order.dropped", "order.later", "news.published"):
            send(receiver, event)
        send(receiver, "order.created", id="ord_1")
        send(receiver, "order.created", id="ord_1")
    assert outcomes(record) == [
        ("handled", 200),
        ("handler_failed", 500),
        ("dropped", 200),
        ("unavailable", 503),
        ("ignored", 200),
        ("handled", 200),
        ("duplicate", 200),
    ]
    assert [delivery.event.event for delivery in record.handled] == ["order.created"] * 2


def test_a_copy_that_comes_while_the_first_is_handled(receiver: WebhookReceiver) -> None:
    copy = signed_request("wallet.credited", secret=LIVE_SECRET)

    @receiver.on("wallet.*")
    def again(_event: Event) -> None:
        copy.post(receiver)

    with recording(receiver) as record:
        copy.post(receiver)
    assert outcomes(record) == [("in_flight", 503), ("handled", 200)]


def test_a_refusal_has_its_reason_and_its_path(receiver: WebhookReceiver) -> None:
    with recording(receiver) as record:
        send(receiver, "order.created", age=301, path="/hooks/1")
        receiver.receive(signed_request("order.created").webhook_request())
    assert [(refused.code, refused.status, refused.path) for refused in record.rejected] == [
        (StaleTimestamp.code, 400, "/hooks/1"),
        ("signature_mismatch", 400, PATH),
    ]
    assert str(record.rejected[0]).endswith("(400) at /hooks/1: signed 301 s ago; 300 s are accepted")


def test_a_receiver_that_is_not_ready_is_recorded_as_such() -> None:
    empty = WebhookReceiver(LIVE_SECRET)
    with recording(empty) as record:
        assert send(empty, "order.created").status == 503
    assert [refused.code for refused in record.rejected] == ["configuration_error"]


@pytest.mark.parametrize("kind", ["starlette guard", "fastapi guard", "flask guard", "django guard"])
def test_what_a_guard_passes_on_is_recorded(kind: str) -> None:
    with opened(kind, clock=clock) as shop, recording(shop.receiver) as record:
        signed_request("order.created", id="ord_1", secret=LIVE_SECRET).post(shop.client)
        signed_request("order.created").post(shop.client)
    assert outcomes(record) == [("opened", 0)]
    assert record.assert_handled("order.created", id="ord_1") is record.deliveries[0].delivery
    assert record.assert_rejected().code == "signature_mismatch"
    assert str(record.deliveries[0]) == "order.created ord_1: opened"


def test_it_begins_after_the_first_dispatch_and_ends_with_its_block(receiver: WebhookReceiver) -> None:
    # Hooks could not be registered any more.
    send(receiver, "order.created")
    with recording(receiver) as record:
        send(receiver, "order.created")
    send(receiver, "order.created")
    assert len(record.deliveries) == 1


def test_the_receivers_own_inbox_and_secret_stay(receiver: WebhookReceiver) -> None:
    request = signed_request("order.created", secret=LIVE_SECRET)
    request.post(receiver)
    with recording(receiver) as record:
        request.post(receiver)
    assert outcomes(record) == [("duplicate", 200)]


def test_records_within_records_each_have_it_all(receiver: WebhookReceiver) -> None:
    with recording(receiver) as outer:
        with recording(receiver) as inner:
            send(receiver, "order.created")
        send(receiver, "order.created")
    assert (len(outer.deliveries), len(inner.deliveries)) == (2, 1)


def test_several_receivers_write_one_record(receiver: WebhookReceiver) -> None:
    other = make_receiver(endpoint="other", clock=clock)
    with recording(receiver, other) as record:
        send(receiver, "order.created")
        send(other, "order.created")
    assert [recorded.delivery.endpoint for recorded in record.deliveries] == ["default", "other"]


def test_a_failing_test_leaves_no_observer_behind(receiver: WebhookReceiver) -> None:
    def fail() -> None:
        with recording(receiver):
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with recording(receiver) as record:
        send(receiver, "order.created")
    assert len(record.deliveries) == 1


def test_nothing_is_lost_where_many_come_at_once(receiver: WebhookReceiver) -> None:
    async def both() -> None:
        requests = [signed_request("order.created", secret=LIVE_SECRET).webhook_request() for _ in range(20)]
        await asyncio.gather(*map(receiver.receive_async, requests))

    with recording(receiver) as record:
        asyncio.run(both())
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: send(receiver, "order.created"), range(20)))
    assert outcomes(record) == [("handled", 200)] * 40


def test_an_async_guard_is_recorded_too(receiver: WebhookReceiver) -> None:
    with recording(receiver) as record:
        asyncio.run(receiver.open_async(signed_request("order.created", secret=LIVE_SECRET).webhook_request()))
    assert outcomes(record) == [("opened", 0)]


def test_clear_begins_anew(receiver: WebhookReceiver) -> None:
    with recording(receiver) as record:
        send(receiver, "order.created")
        send(receiver, "order.created", age=999)
        record.clear()
        send(receiver, "order.dropped")
    assert outcomes(record) == [("dropped", 200)]
    assert record.rejected == []


# Assertions


@pytest.fixture
def record(receiver: WebhookReceiver) -> Record:
    """Return the record of one delivery handled, one failed, and one refused."""
    with recording(receiver) as record:
        send(receiver, "order.created", id="ord_1", amount_cents=1250, note="only-the-body-says-this")
        send(receiver, "order.failed", id="ord_2")
        signed_request("order.created", id="ord_3").post(receiver)
    return record


def test_what_was_handled_is_found_by_its_fields(record: Record) -> None:
    assert record.assert_handled("order.created").event.id == "ord_1"
    assert record.assert_handled(OrderCreated, id="ord_1", amount_cents=1250.0).event.id == "ord_1"
    assert record.assert_handled("order.created", amount_cents=ANY, times=1).attempt == 1


FAILED = "order.failed ord_2: handler_failed (500); its traceback is in the log, as handler.failed"
REFUSED = (
    "signature_mismatch (400) at /webhooks/roovet: no digest agrees with the body under any active secret: default"
)


@pytest.mark.parametrize(
    ("arguments", "fault", "miss"),
    [
        ({"id": "ord_2"}, "order.created id='ord_2' was never handled", ", but it differs in id"),
        (
            {"id": "ord_1", "amount_cents": 99, "paid": True},
            "order.created id='ord_1' amount_cents=99 paid=True was never handled",
            ", but it differs in amount_cents, paid",
        ),
        ({"times": 2}, "order.created was handled 1 times, not 2", ""),
    ],
)
def test_a_failure_says_what_happened_instead(record: Record, arguments: Any, fault: str, miss: str) -> None:  # noqa: ANN401 - of the assertion
    with pytest.raises(AssertionError) as failed:
        record.assert_handled("order.created", **arguments)
    accepted = f"accepted: 2\n    order.created ord_1: handled (200){miss}\n    {FAILED}"
    assert str(failed.value) == f"{fault}\n{accepted}\nrejected: 1\n    {REFUSED}"
    assert "only-the-body-says-this" not in str(failed.value)
    assert LIVE_SECRET not in str(failed.value)


def test_a_failed_delivery_was_not_handled(record: Record) -> None:
    with pytest.raises(AssertionError, match=r"order\.failed id='ord_2' was never handled"):
        record.assert_handled("order.failed", id="ord_2")


def test_a_test_that_reaches_nothing_is_told_so() -> None:
    with pytest.raises(AssertionError) as failed:
        Record().assert_handled("order.created")
    assert str(failed.value) == (
        "order.created was never handled\naccepted: nothing\nrejected: nothing\n"
        "Nothing has reached a receiver: is yours in use (roovet.use), and is it the one that is mounted where the "
        "client posts to?"
    )


@pytest.mark.parametrize("event", ["order.created", "order.failed", "order.dropped", "order.later"])
def test_whatever_reached_a_handler_is_not_nothing(receiver: WebhookReceiver, event: str) -> None:
    with recording(receiver) as record:
        send(receiver, event, id="ord_1")
    with pytest.raises(AssertionError, match=rf"and something was\naccepted: 1\n    {event} ord_1: "):
        record.assert_nothing_handled()


def test_what_reached_no_handler_is_nothing(receiver: WebhookReceiver) -> None:
    request = signed_request("order.created", secret=LIVE_SECRET)
    request.post(receiver)
    with recording(receiver) as record:
        record.assert_nothing_handled()
        send(receiver, "news.published")
        request.post(receiver)
        send(receiver, "order.created", age=999)
        record.assert_nothing_handled()
    assert len(record.deliveries) == 2


def test_refusals_are_found_by_code_or_class(record: Record, receiver: WebhookReceiver) -> None:
    with recording(receiver) as more:
        for age in (301, 302):
            send(receiver, "order.created", age=age)
    assert more.assert_rejected(StaleTimestamp.code).reason.startswith("signed 302 s ago")
    assert record.assert_rejected().code == "signature_mismatch"
    with pytest.raises(AssertionError, match="no request was rejected as missing_signature\naccepted: 2\n"):
        record.assert_rejected(MissingSignature)
    record.rejected.clear()
    with pytest.raises(AssertionError, match="no request was rejected\naccepted: 2\n"):
        record.assert_rejected()


@pytest.mark.parametrize("times", [0, -1])
def test_no_times_is_said_otherwise(record: Record, times: int) -> None:
    with pytest.raises(ValueError, match="assert_nothing_handled"):
        record.assert_handled("order.created", times=times)


def test_a_class_that_declares_no_event_is_no_name(record: Record) -> None:
    with pytest.raises(ValueError, match="give the name of the event"):
        record.assert_handled(Event)


def test_a_record_shows_no_body(record: Record) -> None:
    shown = repr(record)
    assert shown.startswith("Record(deliveries=['order.created ord_1: handled (200)', 'order.failed ord_2: ")
    assert shown.endswith("rejected=['signature_mismatch'])")
    assert "only-the-body-says-this" not in shown + repr(record.deliveries) + repr(record.rejected)
    assert isinstance(record.deliveries[0], Recorded)
