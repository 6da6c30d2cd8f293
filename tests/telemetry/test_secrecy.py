"""Every failure there is, seen with everything that prints variables: no secret, no signature and no body."""

from __future__ import annotations

import asyncio
import base64
import faulthandler
import hashlib
import hmac
import html
import importlib
import io
import linecache
import logging
import os
import pickle
import re
import sys
import traceback
from functools import partial
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import flask
import httpx
import pydantic
import pytest
import structlog
import werkzeug.test
from conformance.mounts import configure_django
from rich.console import Console
from rich.traceback import Traceback
from starlette.applications import Starlette
from starlette.routing import Route
from support import NOW, clock, headers_of, payload
from werkzeug.debug import DebuggedApplication
from werkzeug.debug.tbtools import DebugTraceback

from roovet_webhooks import (
    Delivery,
    DropDelivery,
    Event,
    InboxUnavailable,
    Keyring,
    MemoryInbox,
    RetryLater,
    Secret,
    Signer,
    Tenant,
    Verifier,
    WebhookError,
    WebhookReceiver,
    WebhookRequest,
    WebhookResponse,
    construct_event,
    sign,
    verify,
)
from roovet_webhooks.asgi import verified_webhook as starlette_guard
from roovet_webhooks.flask import verified_webhook as flask_guard
from roovet_webhooks.receiving.request_checks import admit
from roovet_webhooks.telemetry import LOGGER_NAME

configure_django()

from django.test import Client, RequestFactory, override_settings  # noqa: E402 - Django has to be configured before
from django.urls import path  # noqa: E402 - Django has to be configured before
from django.views.debug import ExceptionReporter  # noqa: E402 - Django has to be configured before

from roovet_webhooks.django import verified_webhook as django_guard  # noqa: E402 - Django has to be configured before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from roovet_webhooks.inbox.protocol import Claim, Stored
    from roovet_webhooks.inbox.states import Outcome
    from roovet_webhooks.messages import Body

    Server = Literal["sync", "async"]
    Scenario = Callable[["Stage"], None]

# Secrets of these tests alone: a traceback shows source lines too, and examples in docstrings have one of the others.
SECRET = "whsec_seen_by_nobody_9d41c07be2"
OTHER_SECRET = "whsec_seen_by_no_other_77aa03f5c6"
MARK = "only-the-body-says-this"
API_KEY = "rvpk_live_0123456789abcdef0123"
WIDE = 1_000
TOLERANCE = 300


class Sent(NamedTuple):
    """A body and its headers, and what of them nobody may see."""

    raw: bytes
    headers: dict[str, str]

    @property
    def hidden(self) -> set[bytes]:
        """Return the mark, and every digest: those given, and those that would be right."""
        given = [item.partition("=")[2] for item in self.headers.get("X-Roovet-Signature", "").split(",")]
        stamps = {given[0], str(NOW)}
        right = [
            hmac.new(secret.encode(), f"{stamp}.".encode() + self.raw, hashlib.sha256).hexdigest()
            for secret in (SECRET, OTHER_SECRET)
            for stamp in stamps
        ]
        digests = {digest for digest in (*given[1:], *right) if digest}
        texts = {MARK.encode(), *(digest.encode() for digest in digests)}
        return texts | {bytes.fromhex(digest) for digest in digests if set(digest) <= set("0123456789abcdef")}


def sent(event: str = "order.created", *, more: bytes = b"", secret: str = SECRET, at: int = NOW) -> Sent:
    raw = payload(event, note=MARK)
    return Sent(raw + more, headers_of(raw, secret=secret, timestamp=at))


def of_raw(raw: bytes) -> Sent:
    return Sent(raw, headers_of(raw))


def with_header(message: Sent, name: str, value: str | None) -> Sent:
    headers = {**message.headers, name: value}
    return Sent(message.raw, {name: value for name, value in headers.items() if value is not None})


SECRETS = {SECRET.encode(), OTHER_SECRET.encode(), API_KEY.encode()}


def forms(hidden: bytes) -> Iterator[str]:
    """Yield how a text could show it: as it is, escaped, in hex and in base64."""
    yield hidden.decode("latin-1")
    yield repr(hidden)[2:-1]
    yield hidden.hex()
    yield base64.b64encode(hidden).decode().rstrip("=")


# What prints variables


def with_variables(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def by_rich(error: BaseException) -> str:
    # What it prints, before it is coloured and framed, which takes it a tenth of a second.
    trace = Traceback.extract(
        type(error),
        error,
        error.__traceback__,
        show_locals=True,
        locals_max_string=WIDE,
        locals_max_length=WIDE,
        locals_hide_dunder=False,
        locals_hide_sunder=False,
    )
    nodes = [node for stack in trace.stacks for frame in stack.frames for node in (frame.locals or {}).values()]
    return "\n".join([*(str(stack) for stack in trace.stacks), *map(str, nodes)])


def by_structlog(error: BaseException) -> str:
    transform = structlog.tracebacks.ExceptionDictTransformer(
        show_locals=True,
        locals_max_length=WIDE,
        locals_max_string=WIDE,
        locals_hide_sunder=False,
        locals_hide_dunder=False,
    )
    return repr(transform((type(error), error, error.__traceback__)))


def by_pytest(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    entries = pytest.ExceptionInfo.from_exception(error).traceback
    return "\n".join(entry.frame.repr(value) for entry in entries for value in entry.locals.values())


def by_django(error: BaseException) -> str:
    urls = ModuleType("no_urls")
    vars(urls)["urlpatterns"] = []
    request = RequestFactory().post("/webhooks/roovet", b"{}", "application/json")
    reporter = ExceptionReporter(request, type(error), error, error.__traceback__)
    with override_settings(ROOT_URLCONF=urls, ROOVET_WEBHOOK_SECRET=SECRET):
        # What its page shows, before the template does.
        data = reporter.get_traceback_data()
    lines = [str(value) for frame in data["frames"] for _, value in frame.get("vars", ())]
    lines += [str(data.get(name)) for name in ("exception_value", "exception_notes", "request_meta", "settings")]
    # It breaks long values into several strings.
    return re.sub(r"'\s*\n\s*b?'", "", "\n".join(lines))


def by_werkzeug(error: BaseException) -> str:
    return DebugTraceback(error).render_debugger_html(evalex=False, secret="", evalex_trusted=False)


def by_line(error: BaseException) -> str:
    """Print what every name and attribute in the lines around a failure stands for, as cgitb and IPython do."""
    shown: list[str] = []
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == __name__:
            continue  # the user's own code, which names what it likes
        variables = {**frame.f_globals, **frame.f_locals}
        for place in range(number - 2, number + 3):
            for name, *attributes in map(_split, _NAMES.findall(linecache.getline(frame.f_code.co_filename, place))):
                value = variables.get(name)
                shown.append(repr(value))
                for attribute in attributes:
                    value = getattr(value, attribute, None)
                    shown.append(repr(value))
    return "\n".join(shown)


_NAMES = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def _split(dotted: str) -> list[str]:
    return dotted.split(".")


PRINTERS = [with_variables, by_rich, by_structlog, by_pytest, by_django, by_werkzeug, by_line]


def without_this_module(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of the one who provoked it, who knows the secret and the body."""
    while frames is not None and frames.tb_frame.f_globals.get("__name__") == __name__:
        frames = frames.tb_next
    return frames


class Stage:
    """Where a failure is provoked, and all that anyone could see of it."""

    def __init__(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        self.server = server
        self.hidden = set(SECRETS)
        self.errors: list[BaseException] = []
        self.things: list[object] = []
        self._caplog = caplog
        caplog.set_level(logging.DEBUG, LOGGER_NAME)

    def receiver(self, handler: Callable[..., object] | None = None, secret: Any = SECRET, **options: Any) -> Any:  # noqa: ANN401 - a receiver, whose parts tests replace
        receiver = WebhookReceiver(secret, **{"clock": clock, "tolerance": TOLERANCE, **options})
        if handler is not None:
            receiver.on("*", name="handler")(handler)
        receiver.on_error(self._on_error)
        receiver.on_rejected(self._on_rejected)
        return receiver

    def _on_error(self, error: Exception, delivery: Delivery) -> None:
        self.errors.append(error)
        self.things += [delivery, delivery.event]

    def _on_rejected(self, error: WebhookError, request: WebhookRequest) -> None:
        self.errors.append(error)
        self.things.append(request)

    def request(self, message: Sent, body: object = None, *more: tuple[bytes, bytes]) -> WebhookRequest:
        self.hidden |= message.hidden
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in message.headers.items()]
        raw = message.raw if body is None else cast("Body", body)
        return WebhookRequest("POST", "/webhooks/roovet", [*pairs, *more], raw)

    def receive(self, receiver: WebhookReceiver, request: WebhookRequest) -> WebhookResponse:
        sync = self.server == "sync"
        response = receiver.receive(request) if sync else asyncio.run(receiver.receive_async(request))
        self.things += [request, response, receiver]
        return response

    def open(self, receiver: WebhookReceiver, request: WebhookRequest) -> None:
        if self.server == "sync":
            self.calls(receiver.open, request)
        else:
            self.calls(asyncio.run, receiver.open_async(request))

    def calls(self, function: Callable[..., object], *arguments: object, **options: object) -> None:
        """Call what must raise; keep what it raises."""
        try:
            function(*arguments, **options)
        except BaseException as error:  # noqa: BLE001 - every kind is kept
            error.__traceback__ = without_this_module(error.__traceback__)
            self.errors.append(error)
        else:
            pytest.fail(f"{function} raised nothing")

    def causes(self) -> list[BaseException]:
        logged = [record.exc_info[1] for record in self._caplog.records if record.exc_info]
        return [*self.errors, *(error for error in logged if error is not None)]

    def seen(self) -> str:
        """Return everything that anyone could see."""
        texts = [self._caplog.text]
        texts += [repr(vars(record)) for record in self._caplog.records]
        for error in self.causes():
            texts += [f"{error} {error!r}", *(printer(error) for printer in PRINTERS)]
            if isinstance(error, WebhookError):
                texts += [repr(dict(error.evidence)), pickle.dumps(error).decode("latin-1")]
        for thing in self.things:
            console = Console(file=io.StringIO(), width=WIDE)
            console.print(thing)
            texts += [f"{thing} {thing!r}", cast("io.StringIO", console.file).getvalue(), pickled(thing)]
        return "\n".join(texts)


def pickled(thing: object) -> str:
    """Return a pickle as text; nothing of what refuses to be pickled."""
    if isinstance(thing, Delivery):
        # Whoever pickles a delivery hands its body on: that is what a delivery is.
        return ""
    try:
        return pickle.dumps(thing).decode("latin-1")
    except (TypeError, AttributeError, pickle.PicklingError):
        return ""


SCENARIOS: dict[str, Scenario] = {}


def provoked(scenario: Scenario) -> Scenario:
    SCENARIOS[scenario.__name__] = scenario
    return scenario


# The user's own code, which has no variable that says more than it must


def ignore(_event: Event) -> None: ...


def fail(event: Event) -> None:
    raise ValueError(event.event)


async def fail_async(event: Event) -> None:
    raise ValueError(event.event)


def fail_with_delivery(_event: Event, delivery: Delivery) -> None:
    raise ValueError(delivery.id)


def broken(*_: object) -> Any:  # noqa: ANN401 - whatever is asked for
    message = "broken"
    raise OSError(message)


async def broken_async(*_: object) -> None:
    message = "broken"
    raise OSError(message)


def breaking(raw: bytes) -> Iterator[bytes]:
    # Not a generator: its frame would be the test's own leak.
    return chain([raw], map(broken, [None]))


# A stranger's requests


def refused(message: Callable[[], Sent], **options: Any) -> Scenario:  # noqa: ANN401 - a receiver's own
    """Return a scenario in which a request is refused, where it is mounted and where it is guarded."""

    def scenario(stage: Stage) -> None:
        receiver = stage.receiver(ignore, **options)
        assert stage.receive(receiver, stage.request(message())).status >= 400
        stage.open(receiver, stage.request(message()))

    return scenario


def unknown(_request: WebhookRequest) -> Tenant | None:
    return None


def no_tenant(_request: WebhookRequest) -> str:
    return "acme"


def tenant(_request: WebhookRequest) -> Tenant:
    return Tenant("acme", OTHER_SECRET)


def bad_tenant(_request: WebhookRequest) -> Tenant:
    return Tenant("acme", [OTHER_SECRET, API_KEY])


def uppercase() -> Sent:
    message = sent()
    return with_header(message, "X-Roovet-Signature", message.headers["X-Roovet-Signature"].upper())


SCENARIOS |= {
    "missing": refused(lambda: with_header(sent(), "X-Roovet-Signature", None)),
    "malformed": refused(uppercase),
    "halved": refused(lambda: with_header(sent(), "X-Roovet-Signature", f"t={NOW},v1={'ab' * 16}")),
    "not_latin": refused(lambda: with_header(sent(), "X-Roovet-Signature", f"t={NOW},v1=é{'ab' * 32}")),
    "stale": refused(lambda: sent(at=NOW - TOLERANCE - 1)),
    "future": refused(lambda: sent(at=NOW + TOLERANCE + 1)),
    "other_timestamp": refused(lambda: with_header(sent(), "X-Roovet-Timestamp", "1")),
    "altered": refused(lambda: sent(more=b" ")),
    "other_secret": refused(lambda: sent(secret=OTHER_SECRET)),
    "several_secrets": refused(lambda: sent(more=b" "), secret=[SECRET, OTHER_SECRET]),
    "media_type": refused(lambda: with_header(sent(), "Content-Type", "text/plain")),
    "encoding": refused(lambda: with_header(sent(), "Content-Encoding", "gzip")),
    "length": refused(lambda: with_header(sent(), "Content-Length", "1e3")),
    "incomplete": refused(lambda: with_header(sent(), "Content-Length", "4096")),
    "too_large": refused(sent, max_body_bytes=16),
    "no_json": refused(lambda: of_raw(f'{{"note":"{MARK}",'.encode())),
    "no_utf8": refused(lambda: of_raw(f'{{"note":"{MARK}"}}'.encode() + b"\xff")),
    "no_object": refused(lambda: of_raw(f'["{MARK}"]'.encode())),
    "no_event": refused(lambda: of_raw(f'{{"note":"{MARK}","id":"1","ts":1}}'.encode())),
    "bad_event": refused(lambda: of_raw(f'{{"event":["{MARK}"],"id":"1","ts":1}}'.encode())),
    "bad_ts": refused(lambda: of_raw(f'{{"event":"a","id":"1","ts":"{MARK}"}}'.encode())),
    "unknown_tenant": refused(sent, secret=unknown),
    "no_tenant": refused(sent, secret=no_tenant),
    "bad_tenant": refused(sent, secret=bad_tenant),
    "resolver": refused(sent, secret=broken),
    "resolver_async": refused(sent, secret=broken_async),
    "other_tenant": refused(sent, secret=tenant),
    "dedupe": refused(sent, dedupe=broken),
    "dedupe_without_a_key": refused(sent, dedupe=lambda _event: None),
    "clock": refused(sent, clock=broken),
    "clock_without_a_time": refused(sent, clock=lambda: None),
    "clock_of_nan": refused(sent, clock=lambda: float("nan")),
}


@provoked
def body_that_breaks(stage: Stage) -> None:
    message = sent()
    assert stage.receive(stage.receiver(ignore), stage.request(message, breaking(message.raw))).status == 500
    stage.open(stage.receiver(ignore), stage.request(message, breaking(message.raw)))


@provoked
def body_of_the_wrong_kind(stage: Stage) -> None:
    message = sent()
    assert stage.receive(stage.receiver(ignore), stage.request(message, [message.raw.decode()])).status == 500
    pairs = [(name.encode(), value.encode()) for name, value in message.headers.items()]
    stage.calls(WebhookRequest, "POST", "/webhooks/roovet", pairs, bytearray(message.raw))
    stage.calls(WebhookRequest, "POST", "/webhooks/roovet", message.headers, message.raw)


@provoked
def header_twice(stage: Stage) -> None:
    message = sent()
    again = (b"x-roovet-signature", message.headers["X-Roovet-Signature"].encode())
    assert stage.receive(stage.receiver(ignore), stage.request(message, None, again)).status == 400


@provoked
def not_ready(stage: Stage) -> None:
    for modules in (["no_such_module_for_a_test"], []):
        assert stage.receive(stage.receiver(handlers=modules), stage.request(sent())).status == 503


@provoked
def without_a_secret(stage: Stage) -> None:
    assert stage.receive(stage.receiver(ignore, None), stage.request(sent())).status == 503


@provoked
def a_bad_secret_in_the_environment(stage: Stage) -> None:
    os.environ["ROOVET_WEBHOOK_SECRET"] = f"{SECRET},{API_KEY}"
    try:
        assert stage.receive(stage.receiver(ignore, None), stage.request(sent())).status == 503
        stage.calls(stage.receiver(ignore, None).check)
    finally:
        del os.environ["ROOVET_WEBHOOK_SECRET"]


# What handlers, hooks and inboxes do


def failing(handler: Callable[..., object], status: int = 500, **options: Any) -> Scenario:  # noqa: ANN401 - a receiver's own
    def scenario(stage: Stage) -> None:
        receiver = stage.receiver(handler, **options)
        assert stage.receive(receiver, stage.request(sent())).status == status

    return scenario


def retry(_event: Event) -> None:
    raise RetryLater(5, "not yet")


def drop(_event: Event) -> None:
    reason = "not ours"
    raise DropDelivery(reason)


def chained(event: Event) -> None:
    try:
        fail(event)
    except ValueError as error:
        raise KeyError(event.id) from error


def verifies_again(_event: Event, delivery: Delivery) -> None:
    verify(delivery.raw, f"t={NOW},v1={'0' * 64}", SECRET, now=NOW)


def grouped(event: Event) -> None:
    message = "several"
    raise ExceptionGroup(message, [ValueError(event.id), KeyError(event.event)])


def recursive(event: Event, depth: int = 5) -> None:
    if not depth:
        raise RecursionError
    recursive(event, depth - 1)


class DownInbox(MemoryInbox):
    def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> Stored:
        message = f"down for {delivery.id}, {claim}, {handlers}"
        raise InboxUnavailable(message)


class BrokenInbox(MemoryInbox):
    def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> Stored:
        raise OSError(delivery.id, claim, handlers)


class BrokenLater(MemoryInbox):
    def complete(self, claim: Claim, outcome: Outcome, **_: Any) -> None:  # noqa: ANN401 - never used
        raise OSError(claim.fence, outcome)


SCENARIOS |= {
    "handler": failing(fail),
    "handler_async": failing(fail_async),
    "handler_with_delivery": failing(fail_with_delivery),
    "handler_chained": failing(chained),
    "handler_group": failing(grouped),
    "handler_recursive": failing(recursive),
    "handler_that_verifies": failing(verifies_again),
    "handler_partial": failing(partial(fail)),
    "retry_later": failing(retry, 503),
    "dropped": failing(drop, 200),
    "inbox_down": failing(ignore, 503, inbox=DownInbox()),
    "inbox_broken": failing(ignore, 500, inbox=BrokenInbox()),
    "inbox_broken_later": failing(ignore, 500, inbox=BrokenLater()),
}


class Strict(Event, event="order.created"):
    note: int


class Model(pydantic.BaseModel):
    note: int


class Enough(pydantic.BaseModel):
    event: str

    @pydantic.field_validator("event")
    @classmethod
    def refuse(cls, _value: str) -> str:
        message = "refused"
        raise ValueError(message)


@pytest.mark.parametrize("kind", [Strict, Model, Enough])
def test_a_type_that_refuses_an_event(kind: type, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(server, caplog)
    receiver = stage.receiver()
    receiver.on("order.created", type=kind, name="handler")(ignore)
    assert stage.receive(receiver, stage.request(sent())).status == 500
    message = sent()
    stage.request(message)
    stage.calls(construct_event, message.raw, message.headers, SECRET, type=kind, now=NOW)
    assert_hidden(stage, at_least=2)


@provoked
def hooks(stage: Stage) -> None:
    for hook in (broken, broken_async):
        receiver = stage.receiver(fail)
        receiver.on_error(hook)
        receiver.on_rejected(hook)
        stage.receive(receiver, stage.request(sent(more=b" ")))
        stage.receive(receiver, stage.request(sent()))


@provoked
def late_registration(stage: Stage) -> None:
    receiver = stage.receiver(ignore)
    stage.receive(receiver, stage.request(sent()))
    stage.calls(receiver.on("order.late"), fail)


@provoked
def the_process_is_told_to_stop(stage: Stage) -> None:
    def stop(_event: Event) -> None:
        raise SystemExit(3)

    receiver = stage.receiver(stop)
    if stage.server == "sync":
        stage.calls(receiver.receive, stage.request(sent()))
    else:
        stage.calls(asyncio.run, receiver.receive_async(stage.request(sent())))


@provoked
def a_request_that_is_cancelled(stage: Stage) -> None:
    class Endless:
        """A body that begins and never ends. Not a generator: its frame would be the test's own leak."""

        def __init__(self, raw: bytes) -> None:
            self._chunks = [raw]

        def __aiter__(self) -> Endless:
            return self

        async def __anext__(self) -> bytes:
            if not self._chunks:
                await asyncio.sleep(60)
            return self._chunks.pop()

    async def slow(_event: Event) -> None:
        await asyncio.sleep(60)

    async def cancelled(request: WebhookRequest) -> None:
        receiver = stage.receiver(slow)
        async with asyncio.timeout(0.01):
            await receiver.receive_async(request)

    message = sent()
    stage.calls(asyncio.run, cancelled(stage.request(message, Endless(message.raw))))
    stage.calls(asyncio.run, cancelled(stage.request(message)))


@provoked
def a_sync_receiver_with_an_async_body(stage: Stage) -> None:
    async def chunks(raw: bytes) -> AsyncIterator[bytes]:
        yield raw

    message = sent()
    response = stage.receiver(ignore).receive(stage.request(message, chunks(message.raw)))
    assert response.status == 500


@provoked
def a_log_that_raises(stage: Stage) -> None:
    def full(_logger: object, _method: str, _event: object) -> str:
        raise OSError(28, "No space left on device")

    structlog.configure(processors=[full])
    try:
        assert stage.receive(stage.receiver(fail), stage.request(sent())).status == 500
        assert stage.receive(stage.receiver(fail), stage.request(sent(more=b" "))).status == 400
    finally:
        structlog.reset_defaults()


# What takes a secret


def several(*secrets: str) -> Iterator[str]:
    yield from secrets


TAKERS: list[Callable[..., object]] = [Secret, Verifier, Signer, WebhookReceiver, partial(Tenant, "acme")]


@provoked
def secrets(stage: Stage) -> None:
    bad: Iterable[object] = (API_KEY, f" {SECRET}", f"{SECRET}\n", f'"{SECRET}"', SECRET[:12], SECRET.encode()[:12])
    for secret in bad:
        for taker in TAKERS:
            stage.calls(taker, secret)
        stage.calls(Keyring, [SECRET, secret])
        stage.calls(partial(sign, b"{}"), secret)
        stage.calls(partial(verify, b"{}", "t=1,v1=2"), secret)
        stage.calls(partial(construct_event, b"{}", "t=1,v1=2"), secret)
    for misuse in (
        lambda: Keyring(several(SECRET, API_KEY)),
        lambda: Keyring([SECRET, Secret(OTHER_SECRET, name="secret-1")]),
        lambda: Tenant("", SECRET),
        lambda: Secret(SECRET, expires=cast("float", "tomorrow")),
        lambda: Verifier(SECRET, tolerance=-1),
        lambda: Verifier([SECRET, OTHER_SECRET], tolerance=cast("float", "long")),
        lambda: WebhookReceiver(SECRET, endpoint="NO"),
        lambda: WebhookReceiver(SECRET, tolerance=-1),
        lambda: WebhookReceiver([SECRET, API_KEY], inbox=cast("Any", "sqlite:///x.db")),
        lambda: WebhookReceiver(SECRET, **cast("Any", {"no_such_option": 1})),
    ):
        stage.calls(misuse)


@provoked
def override(stage: Stage) -> None:
    receiver = stage.receiver(ignore)

    def overriding() -> None:
        with receiver.override(secret=[SECRET, API_KEY]):
            pytest.fail("it was taken")

    stage.calls(overriding)


@provoked
def standalone(stage: Stage) -> None:
    for message in (
        sent(more=b" "),
        sent(secret=OTHER_SECRET),
        sent(at=1),
        sent(at=NOW * 2),
        with_header(sent(), "X-Roovet-Timestamp", "1"),
        uppercase(),
        with_header(sent(), "X-Roovet-Signature", ""),
    ):
        stage.request(message)
        signature, stamp = (message.headers.get(f"X-Roovet-{name}") for name in ("Signature", "Timestamp"))
        several_keys: list[str | Secret] = [SECRET, Secret(OTHER_SECRET, name="other", expires=1)]
        for keys in (SECRET, several_keys):
            stage.calls(verify, message.raw, signature, keys, now=NOW, timestamp_header=stamp)
            stage.calls(Verifier(keys).verify, message.raw, signature, now=NOW, timestamp_header=stamp)
            stage.calls(construct_event, message.raw, message.headers, keys, now=NOW)
            stage.calls(construct_event, message.raw, list(message.headers.items()), keys, now=NOW)


@provoked
def standalone_misused(stage: Stage) -> None:
    message = sent()
    stage.request(message)
    signature = message.headers["X-Roovet-Signature"]
    wrong: Any
    for wrong in (message.raw.decode(), {"note": MARK}, bytearray(message.raw), None):
        stage.calls(verify, wrong, signature, SECRET, now=NOW)
        stage.calls(Verifier(SECRET).verify, wrong, signature, now=NOW)
        stage.calls(construct_event, wrong, message.headers, SECRET, now=NOW)
        stage.calls(sign, wrong, SECRET)
        stage.calls(Signer(SECRET).headers, wrong)
    for wrong in (5, {5: signature}, [signature], [(signature, signature, signature)], {"X-Roovet-Signature": 5}):
        stage.calls(construct_event, message.raw, wrong, SECRET, now=NOW)
    stage.calls(construct_event, message.raw, [*message.headers.items()] * 2, SECRET, now=NOW)
    stage.calls(verify, message.raw, 5, SECRET, now=NOW)
    stage.calls(verify, message.raw, signature, SECRET, now="soon")
    stage.calls(verify, message.raw, signature, SECRET, tolerance="long", now=NOW)
    for moment in (-1, 10**12, "soon"):
        stage.calls(sign, message.raw, SECRET, timestamp=moment)
        stage.calls(Signer(SECRET).headers, message.raw, timestamp=moment)
    stage.calls(Signer(Secret(SECRET, expires=1)).sign, message.raw, timestamp=NOW)


@provoked
def pickles_and_reprs(stage: Stage) -> None:
    receiver = stage.receiver(ignore)
    delivery = receiver.open(stage.request(sent()))
    message = sent()
    request = stage.request(message)
    signer, verifier = Signer(SECRET), Verifier([SECRET, OTHER_SECRET])
    proof = verify(message.raw, message.headers["X-Roovet-Signature"], SECRET, now=NOW)
    held = [Secret(SECRET), Keyring([SECRET]), Tenant("acme", SECRET), signer, verifier, receiver, request]
    stage.things += [*held, delivery, delivery.event, delivery.identity, proof]
    for thing in held:
        stage.calls(pickle.dumps, thing)
    assert repr(admit(request, max_body_bytes=WIDE)) == "Head(length=None)"


# And what nobody may see


@pytest.fixture(params=["sync", "async"])
def server(request: pytest.FixtureRequest) -> Server:
    return cast("Server", request.param)


def assert_hidden(stage: Stage, *, at_least: int = 0) -> None:
    assert len(stage.causes()) >= at_least
    seen = stage.seen()
    assert seen
    found = [form for hidden in sorted(stage.hidden) for form in forms(hidden) if form in seen]
    if found:
        places = [seen[max(0, seen.index(form) - 300) : seen.index(form) + 100] for form in found[:3]]
        pytest.fail("\n\n".join([f"{len(found)} forms are seen, such as:", *places]))


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_no_failure_shows_a_secret_a_signature_or_a_body(
    name: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(server, caplog)
    SCENARIOS[name](stage)
    assert_hidden(stage)


LEAKY = """\
def leaks(event, delivery):
    shown = delivery.raw
    raise ValueError(len(shown))
"""


@pytest.mark.parametrize("printer", PRINTERS)
def test_each_printer_prints_variables(
    printer: Callable[[BaseException], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "leaky_shop.py").write_text(LEAKY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "leaky_shop", raising=False)
    stage = Stage("sync", caplog)
    stage.receive(stage.receiver(importlib.import_module("leaky_shop").leaks), stage.request(sent()))
    # Werkzeug's page shows them in its console only, whose frames these are.
    assert (MARK in printer(stage.errors[0])) is (printer is not by_werkzeug)


def test_the_search_finds_every_form(caplog: pytest.LogCaptureFixture) -> None:
    for hidden in (SECRET, headers_of(b"{}")["X-Roovet-Signature"].partition("v1=")[2]):
        for form in forms(hidden.encode()):
            stage = Stage("sync", caplog)
            stage.hidden.add(hidden.encode())
            stage.errors.append(ValueError(f"so: {form}"))
            with pytest.raises(pytest.fail.Exception, match="are seen, such as"):
                assert_hidden(stage)


def fail_in_view(delivery: Delivery) -> None:
    raise ValueError(delivery.id)


def django_page(receiver: WebhookReceiver, message: Sent) -> tuple[int, bytes]:
    def view(_request: object, delivery: Delivery) -> Any:  # noqa: ANN401 - it answers nothing
        fail_in_view(delivery)

    urls = ModuleType("urls_of_a_page")
    vars(urls)["urlpatterns"] = [path("webhooks/roovet", django_guard(receiver)(view))]
    with override_settings(ROOT_URLCONF=urls, DEBUG=True, ROOVET_WEBHOOK_SECRET=SECRET):
        client = Client(raise_request_exception=False)
        response = client.post("/webhooks/roovet", message.raw, "application/json", headers=message.headers)
    return response.status_code, response.content


def flask_page(receiver: WebhookReceiver, message: Sent) -> tuple[int, bytes]:
    app = flask.Flask(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.post("/webhooks/roovet")
    @flask_guard(receiver)
    def view(delivery: Delivery) -> str:
        fail_in_view(delivery)
        return ""

    client = werkzeug.test.Client(DebuggedApplication(app, evalex=True))
    response = client.post("/webhooks/roovet", data=message.raw, headers=message.headers)
    return response.status_code, response.data


def starlette_page(receiver: WebhookReceiver, message: Sent) -> tuple[int, bytes]:
    @starlette_guard(receiver)
    async def view(_request: object, delivery: Delivery) -> None:
        fail_in_view(delivery)

    app = Starlette(debug=True, routes=[Route("/webhooks/roovet", view, methods=["POST"])])

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            headers = {**message.headers, "Accept": "text/html"}
            return await client.post("/webhooks/roovet", content=message.raw, headers=headers)

    response = asyncio.run(post())
    return response.status_code, response.content


@pytest.mark.parametrize("page", [django_page, flask_page, starlette_page])
def test_no_debug_page_shows_what_a_guarded_view_was_sent(
    page: Callable[[WebhookReceiver, Sent], tuple[int, bytes]],
) -> None:
    message = sent()
    status, shown = page(WebhookReceiver(SECRET, clock=clock), message)
    assert status == 500
    text = html.unescape(shown.decode())
    assert "fail_in_view" in text
    assert not [form for hidden in message.hidden | SECRETS for form in forms(hidden) if form in text]


def test_a_dump_of_all_threads_names_places_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    dump = tmp_path_factory.mktemp("dump") / "threads"

    def dumps(_event: Event) -> None:
        with dump.open("w") as file:
            faulthandler.dump_traceback(file)

    receiver = WebhookReceiver(SECRET, clock=clock)
    receiver.on("*")(dumps)
    message = sent()
    pairs = [(name.encode(), value.encode()) for name, value in message.headers.items()]
    assert receiver.receive(WebhookRequest("POST", "/", pairs, message.raw)).status == 200
    dumped = dump.read_text("utf-8")
    assert "in _run" in dumped
    assert not [form for hidden in message.hidden | SECRETS for form in forms(hidden) if form in dumped]
