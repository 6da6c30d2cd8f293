"""One attempt: every handler runs, each success is kept, and nothing is swallowed."""

from __future__ import annotations

import asyncio
import json
import traceback
from typing import TYPE_CHECKING

import pytest
from support import NOW, SECRET, payload, request_of

from roovet_webhooks import (
    Delivery,
    DropDelivery,
    Event,
    RetryLater,
    RetryPolicy,
    Router,
    VerificationError,
    WebhookReceiver,
    WebhookResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


class Handlers:
    """A router of handlers that each end in their own way, and a record of the runs."""

    def __init__(self, **ends: BaseException | None) -> None:
        self.ends = ends
        self.runs: list[str] = []
        self.errors: list[tuple[Exception, Delivery]] = []
        self.router = Router()
        for name in ends:
            self.router.on("*", name=name)(self._handler(name))
        self.router.on_error(lambda error, delivery: self.errors.append((error, delivery)))
        self.receiver = WebhookReceiver(
            SECRET, router=self.router, clock=lambda: NOW, retry=RetryPolicy(first=7, factor=2, most=20)
        )
        self.request = request_of()

    def _handler(self, name: str) -> Callable[[Event], None]:
        def handler(_event: Event) -> None:
            self.runs.append(name)
            end = self.ends[name]
            if end is not None:
                raise end

        return handler

    def answer(self, *, is_async: bool) -> WebhookResponse:
        self.runs.clear()
        if is_async:
            return asyncio.run(self.receiver.receive_async(self.request))
        return self.receiver.receive(self.request)


def word(response: WebhookResponse) -> str:
    content = json.loads(response.body)
    return str(content.get("status") or content["error"]["type"])


def retry_after(response: WebhookResponse) -> bytes | None:
    return dict(response.headers).get(b"retry-after")


@both
def test_every_handler_runs_whatever_another_did(is_async: bool) -> None:  # noqa: FBT001 - a case
    handlers = Handlers(a=None, b=ValueError("x"), c=None, d=OSError("y"), e=None)
    response = handlers.answer(is_async=is_async)
    assert (response.status, word(response)) == (500, "handler_failed")
    assert handlers.runs == ["a", "b", "c", "d", "e"]
    handlers.ends.update(b=None)
    assert handlers.answer(is_async=is_async).status == 500
    assert handlers.runs == ["b", "d"]
    handlers.ends.update(d=None)
    assert word(handlers.answer(is_async=is_async)) == "handled"
    assert handlers.runs == ["d"]
    assert word(handlers.answer(is_async=is_async)) == "duplicate"
    assert handlers.runs == []


@both
def test_the_answer_to_a_failure_names_no_handler(is_async: bool) -> None:  # noqa: FBT001 - a case
    handlers = Handlers(private=ValueError("s3cr3t"))
    response = handlers.answer(is_async=is_async)
    assert b"private" not in response.body
    assert b"s3cr3t" not in response.body


@both
def test_on_error_is_called_for_each_failure(is_async: bool) -> None:  # noqa: FBT001 - a case
    first, second = ValueError("x"), OSError("y")
    handlers = Handlers(a=first, b=None, c=second)
    handlers.answer(is_async=is_async)
    assert [error for error, _ in handlers.errors] == [first, second]
    assert {delivery.attempt for _, delivery in handlers.errors} == {1}
    handlers.answer(is_async=is_async)
    assert [delivery.attempt for _, delivery in handlers.errors] == [1, 1, 2, 2]


@both
def test_an_error_of_our_own_tree_from_a_handler_is_a_failure(is_async: bool) -> None:  # noqa: FBT001 - a case
    # Whatever status it has elsewhere: after the envelope nothing answers 4xx.
    handlers = Handlers(a=VerificationError("x"))
    assert handlers.answer(is_async=is_async).status == 500


@both
@pytest.mark.parametrize(("after", "expected"), [(30, b"30"), (0, b"1"), (None, b"7")])
def test_retry_later(is_async: bool, after: float | None, expected: bytes) -> None:  # noqa: FBT001 - a case
    handlers = Handlers(a=None, b=RetryLater(after), c=None)
    response = handlers.answer(is_async=is_async)
    assert (response.status, word(response), retry_after(response)) == (503, "unavailable", expected)
    assert handlers.runs == ["a", "b", "c"]
    assert not handlers.errors
    handlers.ends.update(b=None)
    assert word(handlers.answer(is_async=is_async)) == "handled"
    assert handlers.runs == ["b"]


def test_the_policy_lengthens_the_wait() -> None:
    handlers = Handlers(a=None)
    waits: list[bytes | None] = []
    for _ in range(4):
        handlers.ends["a"] = RetryLater()
        waits.append(retry_after(handlers.answer(is_async=False)))
    assert waits == [b"7", b"14", b"20", b"20"]


@pytest.mark.parametrize(
    ("waits", "expected"), [((5, 50, 10), b"50"), ((None, 9), b"9"), ((9, None), b"9"), ((0, 0), b"1")]
)
def test_of_several_waits_the_longest_counts(waits: tuple[float | None, ...], expected: bytes) -> None:
    handlers = Handlers(**{f"h{number}": RetryLater(after) for number, after in enumerate(waits)})
    assert retry_after(handlers.answer(is_async=False)) == expected


@both
def test_a_failure_beats_a_later_retry(is_async: bool) -> None:  # noqa: FBT001 - a case
    handlers = Handlers(a=RetryLater(5), b=ValueError("x"))
    response = handlers.answer(is_async=is_async)
    assert (response.status, retry_after(response)) == (500, None)


@both
def test_drop_ends_the_round_and_the_delivery(is_async: bool) -> None:  # noqa: FBT001 - a case
    handlers = Handlers(a=None, b=DropDelivery("a test order"), c=None)
    response = handlers.answer(is_async=is_async)
    assert (response.status, word(response)) == (200, "dropped")
    assert handlers.runs == ["a", "b"]
    assert word(handlers.answer(is_async=is_async)) == "duplicate"
    assert not handlers.errors


@both
def test_what_nobody_wants_goes_to_the_fallback(is_async: bool) -> None:  # noqa: FBT001 - a case
    receiver = WebhookReceiver(SECRET, clock=lambda: NOW)
    handled: list[tuple[str, object]] = []
    receiver.on("order.created", name="fulfil")(lambda event: handled.append(("fulfil", event)))

    @receiver.fallback
    def other(event: Event, delivery: Delivery) -> None:
        assert delivery.event is event
        handled.append(("other", event))

    for name in ("order.created", "order.updated"):
        request = request_of(payload(name))
        response = asyncio.run(receiver.receive_async(request)) if is_async else receiver.receive(request)
        assert word(response) == "handled"
    assert [name for name, _ in handled] == ["fulfil", "other"]


@both
def test_a_model_of_the_users_that_refuses_a_genuine_event(is_async: bool) -> None:  # noqa: FBT001 - a case
    class Strict(Event, event="order.created"):
        amount: int

    handlers = Handlers(a=None)
    handlers.router.on(Strict, name="strict")(lambda _event: None)
    response = handlers.answer(is_async=is_async)
    assert (response.status, word(response)) == (500, "handler_failed")
    assert [type(error).__name__ for error, _ in handlers.errors] == ["EventValidationError"]


@both
def test_a_hook_that_raises_changes_nothing(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001 - a case
    handlers = Handlers(a=ValueError("x"), b=None)

    @handlers.router.on_error
    def broken(_error: Exception, _delivery: Delivery) -> None:
        message = "the hook broke"
        raise RuntimeError(message)

    last: list[Exception] = []
    handlers.router.on_error(lambda error, _delivery: last.append(error))
    assert handlers.answer(is_async=is_async).status == 500
    assert handlers.runs == ["a", "b"]
    assert len(last) == 1
    assert "hook.failed hook=" in caplog.text


@both
def test_the_traceback_leads_to_the_handler_and_holds_no_body(is_async: bool) -> None:  # noqa: FBT001 - a case
    handlers = Handlers(a=ValueError("x"))
    handlers.request = request_of(payload(note="s3cr3t-body"))
    handlers.answer(is_async=is_async)
    error = handlers.errors[0][0]
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert frames[-1].f_code.co_name == "handler"
    held = " ".join(repr(value) for frame in frames for value in frame.f_locals.values())
    assert "s3cr3t-body" not in held
    assert SECRET not in held


def test_the_attempt_is_counted() -> None:
    attempts: list[tuple[int, str]] = []
    receiver = WebhookReceiver(SECRET, clock=lambda: NOW)

    @receiver.on("*")
    def handler(_event: Event, delivery: Delivery) -> None:
        attempts.append((delivery.attempt, delivery.id))
        raise RetryLater

    request = request_of()
    for _ in range(3):
        receiver.receive(request)
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert len({delivery_id for _, delivery_id in attempts}) == 1
