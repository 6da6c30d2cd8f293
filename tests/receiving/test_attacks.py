"""What broke once, or could have: each test is an attack that must not succeed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import StringIO
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.console import Console
from rich.traceback import Traceback
from support import SECRET, clock, headers_of, payload, request_of

from roovet_webhooks import Delivery, DropDelivery, Event, RetryPolicy, WebhookReceiver, WebhookRequest
from roovet_webhooks.receiving.bridge import AsyncBridge, _LoopThread
from roovet_webhooks.receiving.wsgi import request_of as wsgi_request_of

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Coroutine, Iterator

    from roovet_webhooks.messages import Body

MARK = "only-the-body-says-this"
BOUND_SECONDS = 10.0
WIDE = 10_000


def receiver_of(handler: Callable[..., object], **options: Any) -> WebhookReceiver:  # noqa: ANN401 - the receiver's own
    """Return a receiver whose one handler is the given function."""
    receiver = WebhookReceiver(SECRET, **{"clock": clock, **options})
    receiver.on("*", name="handler")(handler)
    return receiver


def signed(raw: bytes, body: object, *more: tuple[bytes, bytes]) -> WebhookRequest:
    """Return a request with the headers of a body, and whatever comes instead of that body."""
    pairs = [(name.encode(), value.encode()) for name, value in headers_of(raw).items()]
    return WebhookRequest("POST", "/webhooks/roovet", [*pairs, *more], cast("Body", body))


def ignore(_event: Event) -> None:
    """Handle an event."""


# What a stranger sends


@pytest.mark.parametrize("body", [b"", [b"short"]])
def test_a_length_beside_a_transfer_encoding_is_refused_and_is_no_fault_of_ours(body: object) -> None:
    lengths = ((b"content-length", b"100"), (b"transfer-encoding", b"chunked"))
    assert receiver_of(ignore).receive(signed(b"", body, *lengths)).status == 411


@pytest.mark.parametrize(
    ("version", "more"),
    [("2", ()), ("1.1", ((b"Upgrade", b"h2c"),)), ("1.1", ((b"upgrade", b"h2c"), (b"upgrade", b"websocket")))],
)
def test_a_body_that_a_server_may_have_lost_is_no_fault_of_the_application(
    version: str, more: tuple[tuple[bytes, bytes], ...]
) -> None:
    request = signed(b"", b"", (b"content-length", b"100"), *more)
    request.http_version = version
    assert receiver_of(ignore).receive(request).status == 400


def test_a_body_that_only_the_application_can_have_consumed_is() -> None:
    assert receiver_of(ignore).receive(signed(b"", b"", (b"content-length", b"100"))).status == 500


def test_a_dedupe_that_raises_answers_503_and_keeps_nothing() -> None:
    def dedupe(_event: Event) -> str:
        if failing:
            raise DropDelivery
        return "key"

    failing = [True]
    receiver = receiver_of(ignore, dedupe=dedupe)
    raw = payload()
    assert receiver.receive(request_of(raw)).status == 503
    failing.clear()
    assert receiver.receive(request_of(raw)).body == b'{"status":"handled"}'


def test_a_header_name_that_a_server_has_made_unencodable() -> None:
    # str.upper(), with which servers make the names of an environ, leads out of Latin-1.
    environ = {"REQUEST_METHOD": "POST", "HTTP_X_\xff\xb5".upper(): "1", "CONTENT_TYPE": "application/json"}
    assert receiver_of(ignore).receive(wsgi_request_of(environ, body=b"", native=None)).status == 400


# What is handled is what was signed


@pytest.mark.parametrize("view", [bytearray, memoryview])
def test_a_buffer_that_is_used_again_does_not_change_what_was_verified(view: Callable[[bytearray], Any]) -> None:
    seen: list[bytes] = []

    def handler(_event: Event, delivery: Delivery) -> None:
        seen.append(delivery.raw)

    raw = payload(note=MARK)

    def reused() -> Iterator[object]:
        buffer = bytearray(raw[:8])
        yield buffer
        buffer[:] = b"tampered"
        yield view(bytearray(raw[8:]))

    assert receiver_of(handler).receive(signed(raw, reused())).status == 200
    assert seen == [raw]


@pytest.mark.parametrize("chunk", ["text", 5, None])
def test_a_chunk_that_is_no_bytes_is_never_taken_for_some(chunk: object) -> None:
    assert receiver_of(ignore).receive(signed(bytes(5), [chunk])).status == 500


# Claims


def test_a_retry_policy_of_great_steps_gives_its_claim_back() -> None:
    def fail(_event: Event) -> None:
        raise LookupError

    receiver = receiver_of(fail, retry=RetryPolicy(factor=1e200))
    raw = payload()
    # 503 would be: in flight, for ever.
    assert [receiver.receive(request_of(raw)).status for _ in range(4)] == [500] * 4


# Exceptions that mean something to the machinery


async def in_executor(function: Callable[..., object], *arguments: object) -> object:
    """Call a function as asgiref does, in a thread of an executor."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        return await asyncio.get_running_loop().run_in_executor(executor, partial(function, *arguments))


@pytest.mark.parametrize("bridge", [None, AsyncBridge(in_executor)])
@pytest.mark.parametrize("error", [StopIteration, asyncio.CancelledError])
def test_a_sync_handler_that_raises_what_a_loop_cannot_carry_has_failed(
    error: type[BaseException], bridge: AsyncBridge | None
) -> None:
    def handler(_event: Event) -> None:
        raise error

    async def both() -> list[int]:
        receiver = receiver_of(handler)
        raw = payload()
        async with asyncio.timeout(BOUND_SECONDS):
            return [(await receiver.receive_async(request_of(raw), bridge=bridge)).status for _ in range(2)]

    assert asyncio.run(both()) == [500, 500]


def test_a_sync_handler_that_raises_a_cancellation_in_a_sync_server_has_failed() -> None:
    def handler(_event: Event) -> None:
        raise asyncio.CancelledError

    assert receiver_of(handler).receive(request_of()).status == 500


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_async_handler_that_ends_the_process_does_not_end_the_loop_of_the_others(
    error: type[BaseException],
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def handler(event: Event) -> None:
        loops.append(asyncio.get_running_loop())
        if event.event == "order.fatal":
            raise error

    receiver = receiver_of(handler)
    raw = payload("order.fatal")
    for _ in range(2):
        # Twice: its claim is given back.
        with pytest.raises(error):
            receiver.receive(request_of(raw))
    assert receiver.receive(request_of()).status == 200
    assert len(loops) == 3
    assert len(set(loops)) == 1


def test_a_loop_that_cannot_be_made_is_a_failure_and_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(_event: Event) -> None: ...

    def no_loop(work: Coroutine[Any, Any, None]) -> None:
        work.close()
        message = "too many open files"
        raise OSError(message)

    monkeypatch.setattr("roovet_webhooks.receiving.bridge._LOOP", _LoopThread())
    receiver = receiver_of(handler)
    raw = payload()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "run", no_loop)
        assert receiver.receive(request_of(raw)).status == 500
    assert receiver.receive(request_of(raw)).status == 200


# Logs that print variables


def printed(records: list[logging.LogRecord]) -> str:
    """Return what a log says that prints each frame's variables with rich."""
    console = Console(file=StringIO(), width=WIDE)
    for record in records:
        console.print(record.getMessage())
        if record.exc_info and record.exc_info[0] and record.exc_info[1]:
            kind, error, traceback = record.exc_info
            console.print(
                Traceback.from_exception(
                    kind, error, traceback, width=WIDE, show_locals=True, locals_max_string=WIDE, locals_max_length=WIDE
                )
            )
    return cast("StringIO", console.file).getvalue()


def _broken(*_: object) -> Any:  # noqa: ANN401 - whatever is asked for
    message = "broken"
    raise OSError(message)


def _body_that_breaks(raw: bytes) -> Iterator[bytes]:
    # Not a generator: its frame would be the test's own leak.
    return chain([raw], map(_broken, [None]))


@pytest.mark.parametrize(
    "options",
    [{"dedupe": _broken}, {"clock": lambda: None}, {}, {"body": _body_that_breaks}],
    ids=["dedupe", "clock", "handler", "body"],
)
@pytest.mark.parametrize("server", ["sync", "async"])
def test_no_log_that_prints_variables_finds_a_body_or_a_signature(
    options: dict[str, Any], server: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(_event: Event, delivery: Delivery) -> None:
        _broken(delivery)

    raw = payload(note=MARK)
    body = options.get("body", bytes)(raw)
    receiver = receiver_of(handler, **{name: value for name, value in options.items() if name != "body"})
    request = signed(raw, body)
    response = asyncio.run(receiver.receive_async(request)) if server == "async" else receiver.receive(request)
    assert response.status == (503 if "dedupe" in options else 500)
    log = printed(caplog.records)
    assert "locals" in log
    assert MARK not in log
    assert SECRET not in log
    assert headers_of(raw)["X-Roovet-Signature"].partition("v1=")[2] not in log
