"""A request and a response that belong to no framework, and the two shapes of every answer.

An adapter makes the first and sends the second; what lies between is the same for all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias, cast

from roovet_webhooks.signing.secrecy import Unpicklable, forget_variables

if TYPE_CHECKING:
    from roovet_webhooks.errors import WebhookError

Body: TypeAlias = bytes | Iterable[bytes] | AsyncIterable[bytes]
"""A raw body: whole, or in chunks that are read once."""


class WebhookRequest(Unpicklable):
    """An HTTP request, as it came. Nobody has verified it, so it refuses to be pickled: nothing of it goes elsewhere.

    Args:
        method: ``POST``, or what the client sent instead.
        path: Path of the request, for logs and for a resolver of tenants.
        headers: Pairs of name and value, as bytes, each as often as it came. Names in any case.
        body: The raw body: bytes, or chunks to be read once, sync or async.
        path_params: What the framework's route captured, for a resolver of tenants.
        native: The framework's own request, for a resolver of tenants; not used here.
        http_version: ``1.0``, ``1.1`` or ``2``.
        needs_length: The body ends by Content-Length alone; without a valid one it cannot be read (411).

    Raises:
        TypeError: The method or the path is no text, the headers are no pairs of bytes, or the body has no bytes.
    """

    _holds: ClassVar[str] = "a signature and a body"

    __slots__ = ("body", "headers", "http_version", "method", "native", "needs_length", "path", "path_params")

    def __init__(  # noqa: PLR0913 - a request has this many parts
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: Body = b"",
        path_params: Mapping[str, object] | None = None,
        *,
        native: object = None,
        http_version: str = "1.1",
        needs_length: bool = False,
    ) -> None:
        try:
            _check_parts(method, path, headers, body)
        except TypeError as error:
            forget_variables(error)
            del headers, body
            raise
        self.method: str = method
        self.path: str = path
        self.headers: Sequence[tuple[bytes, bytes]] = headers
        self.body: Body = body
        self.path_params: Mapping[str, object] = path_params or {}
        self.native: object = native
        self.http_version: str = http_version
        self.needs_length: bool = needs_length

    def header(self, name: str) -> str | None:
        """Return the value of a header, for a resolver of tenants.

        Args:
            name: Name of the header, in any case.

        Returns:
            Its value (Latin-1), or ``None`` when it is absent or stands more than once.
        """
        wanted = name.lower().encode("latin-1", "replace")
        values = [value for key, value in self.headers if key.lower() == wanted]
        return values[0].decode("latin-1") if len(values) == 1 else None

    @property
    def has_two_lengths(self) -> bool:
        """Whether there are both a Content-Length and a Transfer-Encoding.

        Servers go by either, and those that go by the chunks leave a length that says nothing. Where two of them
        disagree, the rest is a second request for one of them, so the connection must end (RFC 9112, 6.1).
        """
        names = {name.lower() for name, _ in self.headers}
        return b"content-length" in names and b"transfer-encoding" in names

    def __repr__(self) -> str:
        """Show where it went; headers and body stay out of logs."""
        # A crash report may print one that could not be made.
        return f"WebhookRequest({getattr(self, 'method', None)!r}, {getattr(self, 'path', None)!r})"


def _check_parts(method: object, path: object, headers: object, body: object) -> None:
    """Check the parts of a request that every later step relies on.

    Raises:
        TypeError: One is of another type.
    """
    if not (isinstance(method, str) and isinstance(path, str)):
        message = f"method and path must be str, not {type(method).__name__} and {type(path).__name__}"
        raise TypeError(message)
    held, body_kind = type(headers).__name__, type(body).__name__
    if isinstance(headers, str | bytes | Mapping) or not isinstance(headers, Iterable):
        raise _no_pairs(held)
    for pair in cast("Iterable[object]", headers):
        kind = type(pair).__name__
        if not isinstance(pair, tuple | list) or len(cast("Sequence[object]", pair)) != 2:  # noqa: PLR2004 - a pair
            what = f"{held} of {kind}"
            raise _no_pairs(what)
        for part in cast("Sequence[object]", pair):
            if not isinstance(part, bytes):
                what = f"pairs of {type(part).__name__}"
                raise _no_pairs(what)
    if isinstance(body, str):
        message = "body must be the raw bytes that arrived, not str: decoding may have changed what was signed"
        raise TypeError(message)
    if isinstance(body, bytearray | memoryview | Mapping) or not isinstance(body, bytes | Iterable | AsyncIterable):
        hint = "bytes(body)" if isinstance(body, bytearray | memoryview) else "the raw body, or its chunks"
        message = f"body must be the raw bytes that arrived, not {body_kind}; pass {hint}"
        raise TypeError(message)


def _no_pairs(what: str) -> TypeError:
    return TypeError(
        f"headers must be pairs of bytes, not {what}; "
        "pass [(name.encode('latin-1'), value.encode('latin-1')) for name, value in headers.items()]"
    )


class WebhookResponse:
    """An HTTP response to be sent as it is.

    Attributes:
        status: HTTP status.
        headers: Pairs of lower-case name and value, as bytes; they include the content length.
        body: The body, JSON.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.status: int = status
        self.headers: Sequence[tuple[bytes, bytes]] = headers
        self.body: bytes = body

    def __repr__(self) -> str:
        """Show status and body; the body is ours and holds nothing secret."""
        return f"WebhookResponse({self.status}, {self.body!r})"


def json_response(status: int, content: object, headers: Sequence[tuple[bytes, bytes]] = ()) -> WebhookResponse:
    """Return a JSON response."""
    body = json.dumps(content, separators=(",", ":")).encode()
    length = str(len(body)).encode()
    return WebhookResponse(
        status, ((b"content-type", b"application/json"), (b"content-length", length), *headers), body
    )


def error_response(error: WebhookError) -> WebhookResponse:
    """Return the answer to a request that ended in this error, in the vendor's error shape.

    The vendor document, "Error shape", has ``type``, ``code`` (the status as text), ``message`` and
    ``param``. Only class-level words go out; the error's own message never does.
    """
    headers: list[tuple[bytes, bytes]] = []
    if error.status == 405:  # noqa: PLR2004 - Method Not Allowed
        headers.append((b"allow", b"POST"))
    if error.closes_connection:
        headers.append((b"connection", b"close"))
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    content = {
        "type": error.type,
        "code": str(error.status),
        "message": error.public_message,
        "param": error.param,
    }
    return json_response(error.status, {"error": content}, headers)


STORED = json_response(200, {"status": "stored"})
DUPLICATE = json_response(200, {"status": "duplicate"})
HANDLED = json_response(200, {"status": "handled"})
IGNORED = json_response(200, {"status": "ignored"})
DROPPED = json_response(200, {"status": "dropped"})
