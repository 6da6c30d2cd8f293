"""Ways to put a case to a receiver inside this process."""

from __future__ import annotations

import asyncio
import io
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from django.test import override_settings

from conformance import mounts
from conformance.cases import Answer, Ending, Wire
from conformance.stage import Stage
from roovet_webhooks import IncompleteBody, WebhookRequest, WebhookResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, MutableMapping
    from wsgiref.types import StartResponse

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import WSGIApplication
    from starlette.types import ASGIApp, Message

Pairs = list[tuple[bytes, bytes]]

ANSWER_SECONDS = 30.0


class Record(NamedTuple):
    """What happened behind a mount: the runs of handlers, and the refusals, each as code and request."""

    seen: list[str]
    rejected: list[str]


class Harness(Protocol):
    """Puts requests to a mounted stage.

    Attributes:
        traits: What makes its verdicts differ; see `conformance.cases`.
    """

    traits: frozenset[str]

    def send(self, wire: Wire) -> Answer | None:
        """Send a request; return the answer, or ``None`` when there was none."""
        ...

    def record(self) -> Record:
        """Return what has happened so far."""
        ...


def pairs_of(wire: Wire) -> Pairs:
    """Return the header lines as a server reads them: folded lines joined, white space around values gone."""
    lines = [re.sub(rb"\r\n[ \t]+", b" ", line) for line in wire.lines]
    split = [line.partition(b":") for line in lines]
    return [(name, value.strip(b" \t")) for name, _, value in split]


class _InProcess:
    """What all harnesses of this process have: a stage of their own."""

    traits: frozenset[str] = frozenset()

    def __init__(self) -> None:
        """Set the stage."""
        self.stage = Stage()

    def record(self) -> Record:
        """Return what has happened so far."""
        return Record(list(self.stage.seen), list(self.stage.rejected))


def _answer_of(response: WebhookResponse) -> Answer:
    headers = {name.decode(): value.decode() for name, value in response.headers}
    assert len(headers) == len(response.headers)
    return Answer(response.status, headers, response.body)


def _gone(wire: Wire) -> IncompleteBody:
    """Return what an adapter raises when the sender has gone."""
    return IncompleteBody("the sender closed the connection", received=sum(map(len, wire.chunks)))


class Receive(_InProcess):
    """Calls ``receiver.receive``: what an adapter for anything else does."""

    traits = frozenset({"receive"})

    def send(self, wire: Wire) -> Answer | None:
        """Send a request whose body is an iterable."""
        path = wire.target.partition(b"?")[0].decode()

        def body() -> Iterator[bytes]:
            yield from wire.chunks
            if not wire.complete:
                raise _gone(wire)

        request = WebhookRequest(wire.method.decode(), path, pairs_of(wire), body())
        return _answer_of(self.stage.receivers[path].receive(request))


class ReceiveAsync(_InProcess):
    """Calls ``receiver.receive_async``."""

    def send(self, wire: Wire) -> Answer | None:
        """Send a request whose body is an async iterable."""
        path = wire.target.partition(b"?")[0].decode()

        async def body() -> AsyncIterator[bytes]:
            for chunk in wire.chunks:
                yield chunk
            if not wire.complete:
                if wire.ending is Ending.WAIT:
                    await asyncio.Event().wait()
                raise _gone(wire)

        request = WebhookRequest(wire.method.decode(), path, pairs_of(wire), body())
        return _answer_of(asyncio.run(self.stage.receivers[path].receive_async(request)))


class Asgi(_InProcess):
    """Calls an ASGI application."""

    def __init__(self, mount: Callable[[Stage], ASGIApp], *, prefix: bytes = b"", scheme: str = "http") -> None:
        super().__init__()
        self.app = mount(self.stage)
        self.prefix = prefix
        self.scheme = scheme

    def send(self, wire: Wire) -> Answer | None:
        """Send a request as a server's messages."""
        return asyncio.run(asyncio.wait_for(self._send(wire), ANSWER_SECONDS))

    async def _send(self, wire: Wire) -> Answer | None:
        path, _, query = wire.target.partition(b"?")
        path = self.prefix + path
        scope: MutableMapping[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": wire.version.decode(),
            "method": wire.method.decode(),
            "scheme": self.scheme,
            "path": path.decode(),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", b"shop.example"), *((name.lower(), value) for name, value in pairs_of(wire))],
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 80),
        }
        coming = self._messages(wire)
        sent: list[Message] = []

        async def receive() -> Message:
            if coming:
                return coming.pop(0)
            # The sender waits for the answer: nothing more comes until the connection ends.
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        if not sent:
            return None
        assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
        headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))

    @staticmethod
    def _messages(wire: Wire) -> list[Message]:
        messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in wire.chunks]
        if wire.complete:
            messages.append({"type": "http.request", "body": b"", "more_body": False})
        elif wire.ending is not Ending.WAIT:
            messages.append({"type": "http.disconnect"})
        return messages


class DjangoAsgi(Asgi):
    """Calls the Django project under ASGI."""

    traits = frozenset({"spools"})

    def __init__(self) -> None:
        super().__init__(self._mount)

    def _mount(self, stage: Stage) -> ASGIApp:
        self.urls = mounts.django_urls(stage, asynchronous=True)
        return mounts.django_asgi()

    def send(self, wire: Wire) -> Answer | None:
        """Send a request to this stage's URLs."""
        with override_settings(ROOT_URLCONF=self.urls):
            return super().send(wire)


def joined(pairs: Pairs) -> dict[bytes, bytes]:
    """Return the lines as a careful WSGI server passes them on: repeated ones joined, underscores dropped."""
    found: dict[bytes, bytes] = {}
    for name, value in pairs:
        key = name.lower()
        if b"_" not in key:
            found[key] = found[key] + b"," + value if key in found else value
    return found


class _Input(io.RawIOBase):
    """``wsgi.input`` of a body in pieces."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._pieces = list(wire.chunks)
        self._broken = wire.chunked and not wire.complete

    def read(self, size: int = -1, /) -> bytes:
        if not self._pieces:
            if self._broken:
                # What gunicorn does where a chunked body has no end.
                message = "no more chunks"
                raise OSError(message)
            return b""
        piece = self._pieces.pop(0)
        if 0 <= size < len(piece):
            self._pieces.insert(0, piece[size:])
            piece = piece[:size]
        return piece


class Wsgi(_InProcess):
    """Calls a WSGI application."""

    traits = frozenset({"wsgi"})

    def __init__(self, mount: Callable[[Stage], WSGIApplication]) -> None:
        super().__init__()
        self.app = mount(self.stage)

    def send(self, wire: Wire) -> Answer | None:
        """Send a request as an environ."""
        environ = self._environ(wire)
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], _exc_info: OptExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            started.append((status, headers))
            return io.BytesIO().write

        result = self._call(environ, start_response)
        try:
            body = b"".join(result)
        finally:
            if hasattr(result, "close"):
                result.close()
        [(status, headers)] = started
        return Answer(int(status[:3]), {name.lower(): value for name, value in headers}, body)

    def _call(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return self.app(environ, start_response)

    @staticmethod
    def _environ(wire: Wire) -> dict[str, Any]:
        path, _, query = wire.target.partition(b"?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": wire.method.decode(),
            "SCRIPT_NAME": "",
            "PATH_INFO": path.decode(),
            "QUERY_STRING": query.decode(),
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": f"HTTP/{wire.version.decode()}",
            "HTTP_HOST": "shop.example",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": _Input(wire),
            "wsgi.input_terminated": True,
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in joined(pairs_of(wire)).items():
            key = name.decode("latin-1").upper().replace("-", "_")
            unprefixed = key in {"CONTENT_TYPE", "CONTENT_LENGTH"}
            environ[key if unprefixed else f"HTTP_{key}"] = value.decode("latin-1")
        return environ


class DjangoWsgi(Wsgi):
    """Calls the Django project under WSGI."""

    def __init__(self) -> None:
        super().__init__(self._mount)

    def _mount(self, stage: Stage) -> WSGIApplication:
        self.urls = mounts.django_urls(stage, asynchronous=False)
        return mounts.django_wsgi()

    def send(self, wire: Wire) -> Answer | None:
        """Send a request to this stage's URLs."""
        with override_settings(ROOT_URLCONF=self.urls):
            return super().send(wire)


IN_PROCESS: dict[str, Callable[[], Harness]] = {
    "receive": Receive,
    "receive_async": ReceiveAsync,
    "starlette route": lambda: Asgi(mounts.starlette_routes),
    "starlette mount": lambda: Asgi(mounts.starlette_mount, prefix=b"/shop"),
    "starlette middleware": lambda: Asgi(mounts.starlette_middleware),
    "starlette behind middleware": lambda: Asgi(mounts.starlette_behind),
    "fastapi": lambda: Asgi(mounts.fastapi_routes),
    "flask": lambda: Wsgi(mounts.flask_blueprints),
    "django wsgi": DjangoWsgi,
    "django asgi": DjangoAsgi,
}
