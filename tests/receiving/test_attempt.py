"""One attempt: every handler runs, each success is kept, and nothing is swallowed."""

from __future__ import annotations

import asyncio
import json
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from support import NOW, SECRET, payload, request_of

from roovet_webhooks import (
    Delivery,
    DropDelivery,
    Event,
    InboxUnavailable,
    LeaseLost,
    MemoryInbox,
    RetryLater,
    RetryPolicy,
    Router,
    VerificationError,
    WebhookReceiver,
    WebhookResponse,
)
from roovet_webhooks.receiving.attempt import begin_with_users_code, call_hooks
from roovet_webhooks.receiving.bridge import SyncBridge, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from roovet_webhooks.inbox.protocol import Claim

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


class Handlers:
    """A router of handlers that each end in their own way, and a record of the runs."""

    def __init__(self, inbox: MemoryInbox | None = None, /, **ends: BaseException | None) -> None:
        self.ends = ends
        self.runs: list[str] = []
        self.errors: list[tuple[Exception, Delivery]] = []
        self.router = Router()
        for name in ends:
            self.router.on("*", name=name)(self._handler(name))
        self.router.on_error(lambda error, delivery: self.errors.append((error, delivery)))
        self.receiver = WebhookReceiver(
            SECRET,
            router=self.router,
            clock=lambda: NOW,
            retry=RetryPolicy(initial=7, factor=2, max_delay=20),
            inbox=inbox,
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


# What is told


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[tuple[dict[str, Any], BaseException | None]]:
    """Return the fields of what was told under a name, and what was raised."""
    found = [record for record in caplog.records if record.getMessage().split(" ")[0] == event]
    return [(vars(record)["roovet"], record.exc_info[1] if record.exc_info else None) for record in found]


@both
def test_each_end_of_a_handler_is_told_with_its_reason(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001 - a case
    caplog.set_level("DEBUG", "roovet_webhooks")
    fault = ValueError("x")
    handlers = Handlers(a=fault, b=RetryLater(5, "stock is locked"), c=DropDelivery("a test order"), d=None)
    handlers.answer(is_async=is_async)
    [(failed, error)] = told(caplog, "handler.failed")
    assert (failed["handler"], error) == ("a", fault)
    [(later, error)] = told(caplog, "handler.retry_later")
    assert (later["handler"], later["reason"], error) == ("b", "stock is locked", None)
    [(dropped, error)] = told(caplog, "handler.dropped")
    assert (dropped["handler"], dropped["reason"], error) == ("c", "a test order", None)
    for fields in (failed, later, dropped):
        assert (fields["event_type"], fields["endpoint"], fields["tenant"]) == ("order.created", "default", "default")
        assert (fields["attempt"], fields["secret"]) == (1, "default")
        assert fields["delivery"] == handlers.errors[0][1].id
        assert fields["resource"] == handlers.errors[0][1].event.id


@pytest.mark.parametrize("kind", ["function", "partial", "object"])
def test_a_hook_of_any_kind_that_raises_changes_nothing(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    fault = RuntimeError("the hook broke")
    seen: list[object] = []

    def broken(*_: object) -> None:
        raise fault

    class Hook:
        def __call__(self, *_: object) -> None:
            raise fault

    hooks: dict[str, Callable[..., None]] = {"function": broken, "partial": partial(broken, 1), "object": Hook()}
    run(call_hooks([hooks[kind], lambda *given: seen.append(given)], SyncBridge(), 1, 2))
    assert seen == [(1, 2)]
    [(fields, error)] = told(caplog, "hook.failed")
    assert error is fault
    assert fields["hook"] == (broken.__qualname__ if kind == "function" else repr(hooks[kind]))
    # Frames of ours would show the event and the delivery.
    assert {frame.f_code.co_filename for frame, _ in traceback.walk_tb(fault.__traceback__)} == {__file__}


@both
def test_the_traceback_begins_in_the_handler(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001 - a case
    cause, fault = OSError("disk"), ValueError("x")
    fault.__cause__ = cause
    handlers = Handlers(a=fault)
    handlers.answer(is_async=is_async)
    assert [frame.f_code.co_name for frame, _ in traceback.walk_tb(fault.__traceback__)] == ["handler"]
    assert told(caplog, "handler.failed")[0][1] is fault


def raised_through(*modules: str) -> ValueError:
    """Return an error that came up through functions of these modules, the outermost first."""
    error = ValueError("x")

    def fail() -> None:
        raise error

    call: Callable[[], object] = fail
    for name in reversed(modules):
        namespace: dict[str, Any] = {"__name__": name, "call": call}
        exec("def f():\n    call()", namespace)  # noqa: S102 - a frame of that module
        call = namespace["f"]
    try:
        call()
    except ValueError:
        # Without this frame and that of `fail`.
        kept: Any = error.__traceback__
        error.__traceback__ = end = kept.tb_next
        while end.tb_next.tb_next is not None:
            end = end.tb_next
        end.tb_next = None
    return error


OURS = "roovet_webhooks.receiving.attempt"


@pytest.mark.parametrize(
    ("modules", "left"),
    [
        ([OURS, "shop.handlers"], ["shop.handlers"]),
        ([OURS, "anyio.to_thread", "anyio._backends", "shop.handlers"], ["shop.handlers"]),
        ([OURS, "asgiref.sync", "shop.handlers"], ["shop.handlers"]),
        ([OURS, "asyncio.tasks", "concurrent.futures.thread", OURS, "shop.handlers"], ["shop.handlers"]),
        ([OURS, "shop.handlers", "asyncio.locks", OURS], ["shop.handlers", "asyncio.locks", OURS]),
        ([OURS, "anyioish.core", OURS], ["anyioish.core", OURS]),
        ([OURS, "roovet_webhooks_shop.handlers", OURS], ["roovet_webhooks_shop.handlers", OURS]),
        (["shop.handlers"], ["shop.handlers"]),
        # Nothing of the user's: the carrier has failed.
        ([OURS, OURS, "anyio.to_thread", "anyio._backends"], ["anyio.to_thread", "anyio._backends"]),
        (["asyncio.tasks", "asyncio.locks"], ["asyncio.tasks", "asyncio.locks"]),
    ],
    ids=" ".join,
)
def test_what_stands_before_the_users_code_is_left_out(modules: list[str], left: list[str]) -> None:
    error, cause = raised_through(*modules), raised_through(*modules)
    error.__cause__ = cause
    begin_with_users_code(error)
    for one in (error, cause):
        assert [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(one.__traceback__)] == left


# What the inbox is asked for


class Asked(MemoryInbox):
    """An inbox in memory that notes how claims are settled, and may be down."""

    def __init__(self) -> None:
        super().__init__()
        self.settled: list[tuple[Any, ...]] = []
        self.succeeded: list[str] = []
        self.error: Exception | None = None

    def _note(self, *asked: object) -> None:
        self.settled.append(asked)
        if self.error is not None:
            raise self.error

    def succeed(self, claim: Claim, handler: str) -> None:
        self.succeeded.append(handler)
        super().succeed(claim, handler)

    def complete(self, claim: Claim, outcome: Any, **options: Any) -> None:  # noqa: ANN401 - as the inbox has them
        self._note("complete", str(outcome), options["attempt"])
        super().complete(claim, outcome)

    def fail(self, claim: Claim, error: str, *, retry_in: float, **options: Any) -> None:  # noqa: ANN401 - as above
        self._note("fail", error, retry_in, options["attempt"])
        super().fail(claim, error, retry_in=retry_in)

    def release(self, claim: Claim, *, retry_in: float, error: str | None = None, **options: Any) -> None:  # noqa: ANN401 - as above
        self._note("release", error, retry_in, options["attempt"])
        super().release(claim, retry_in=retry_in)


@both
def test_how_a_claim_is_settled(is_async: bool) -> None:  # noqa: FBT001 - a case
    inbox = Asked()
    handlers = Handlers(inbox, a=ValueError("x"), b=None)
    for end in (ValueError("x"), RetryLater(), RetryLater(90, "locked"), RetryLater(0), None):
        handlers.ends["a"] = end
        handlers.answer(is_async=is_async)
    asked = [settled[:-1] for settled in inbox.settled]
    assert asked == [
        ("fail", "failed", 7),
        ("release", "retry later", 14),
        ("release", "retry later", 90),
        ("release", "retry later", 0),
        ("complete", "handled"),
    ]
    attempts = [settled[-1] for settled in inbox.settled]
    assert [attempt.number for attempt in attempts] == [1, 2, 3, 4, 5]
    assert [str(attempt.outcome) for attempt in attempts] == ["failed", *["retry_later"] * 3, "handled"]
    runs = [[(run.handler, run.outcome, run.error) for run in attempt.runs] for attempt in attempts]
    later = [[("a", "retry_later", "RetryLater")]] * 3
    assert runs == [[("a", "failed", "ValueError"), ("b", "handled", None)], *later, [("a", "handled", None)]]
    assert inbox.succeeded == ["b", "a"]
    assert all(0 <= run.duration <= attempt.duration for attempt in attempts for run in attempt.runs)


@pytest.mark.parametrize("error", [None, InboxUnavailable("down"), LeaseLost("over")], ids=repr)
@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_ends_the_process_counts_and_goes_on(
    end: BaseException, error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Asked()
    inbox.error = error
    handlers = Handlers(inbox, a=end, b=None)
    with pytest.raises(type(end)) as caught:
        handlers.answer(is_async=False)
    assert caught.value is end
    assert handlers.runs == ["a"]
    [(what, reason, wait, attempt)] = inbox.settled
    assert (what, reason, wait) == ("fail", "failed", 7)
    assert [(run.handler, run.outcome) for run in attempt.runs] == [("a", "failed")]
    assert [raised for _, raised in told(caplog, "handler.failed")] == [end]
    # Of a claim that could not be settled the reaper tells.
    assert len(told(caplog, "delivery.failed")) == (error is None)


@both
def test_a_store_that_goes_away_is_no_failure_of_a_handler(is_async: bool) -> None:  # noqa: FBT001 - a case
    inbox = Asked()
    inbox.error = InboxUnavailable("down")
    handlers = Handlers(inbox, a=None)
    assert handlers.answer(is_async=is_async).status == 503
    assert not handlers.errors


@both
def test_the_success_of_a_single_handler_is_recorded_by_the_end_of_its_delivery(is_async: bool) -> None:  # noqa: FBT001 - a case
    inbox = Asked()
    assert word(Handlers(inbox, a=None).answer(is_async=is_async)) == "handled"
    assert (inbox.succeeded, len(inbox.settled)) == ([], 1)


@both
def test_the_history_has_each_run(is_async: bool) -> None:  # noqa: FBT001 - a case
    inbox = Asked()
    handlers = Handlers(inbox, a=None, b=ValueError("x"), c=RetryLater(), d=DropDelivery("enough"), e=None)
    handlers.answer(is_async=is_async)
    handlers.ends["b"] = None
    handlers.ends["c"] = None
    assert word(handlers.answer(is_async=is_async)) == "dropped"
    [(*failed, first), (*dropped, second)] = inbox.settled
    assert (failed, dropped) == (["fail", "failed", 7], ["complete", "dropped"])
    assert [(run.handler, run.outcome, run.error) for run in first.runs] == [
        ("a", "handled", None),
        ("b", "failed", "ValueError"),
        ("c", "retry_later", "RetryLater"),
        ("d", "dropped", "DropDelivery"),
    ]
    assert [(run.handler, run.outcome) for run in second.runs] == [("b", "handled"), ("c", "handled"), ("d", "dropped")]
