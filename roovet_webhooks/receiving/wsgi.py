"""A WSGI environ as a `WebhookRequest`: what the Flask and Django adapters share (PEP 3333)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roovet_webhooks.errors import IncompleteBody
from roovet_webhooks.messages import WebhookRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from wsgiref.types import InputStream

    from roovet_webhooks.messages import Body, WebhookResponse

CHUNK_BYTES = 65_536


def request_of(
    environ: Mapping[str, Any],
    *,
    body: Body | None = None,
    path_params: Mapping[str, object] | None = None,
    native: object,
) -> WebhookRequest:
    """Return the request of an environ.

    Args:
        environ: The WSGI environ.
        body: The raw body, where the framework has one already; else it is read from ``wsgi.input``.
        path_params: What the framework's route captured.
        native: The framework's own request.
    """
    headers = [
        (name[5:].replace("_", "-").encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    headers += [
        (name, environ[key].encode("latin-1", "replace"))
        for name, key in ((b"content-type", "CONTENT_TYPE"), (b"content-length", "CONTENT_LENGTH"))
        if environ.get(key)
    ]
    return WebhookRequest(
        environ["REQUEST_METHOD"],
        environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        headers,
        read_input(environ) if body is None else body,
        path_params,
        native=native,
        # A server that ends the stream itself, as gunicorn does for a chunked body, needs no length.
        needs_length="HTTP_TRANSFER_ENCODING" in environ
        and not environ.get("wsgi.input_terminated")
        and not isinstance(body, bytes),
    )


def response_headers(response: WebhookResponse) -> list[tuple[str, str]]:
    """Return the headers of a response as WSGI takes them: the connection is the server's own (PEP 3333)."""
    return [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers if name != b"connection"
    ]


def read_input(environ: Mapping[str, Any], stream: InputStream | None = None) -> Iterator[bytes]:
    """Yield the body, and never read past its end: a read beyond it would wait for the next request.

    Args:
        environ: The WSGI environ.
        stream: What a framework has put around ``wsgi.input``, and nobody has read from; ``wsgi.input`` if ``None``.

    Raises:
        IncompleteBody: The connection closed, or the server found the body malformed, before its end.
    """
    source: InputStream = environ["wsgi.input"] if stream is None else stream
    length = environ.get("CONTENT_LENGTH")
    # admit() has refused a length that is not a number.
    left = int(length) if length else None
    if left is None and not environ.get("wsgi.input_terminated"):
        return
    received = 0
    while left is None or received < left:
        wanted = CHUNK_BYTES if left is None else min(CHUNK_BYTES, left - received)
        try:
            chunk = source.read(wanted)
        except Exception as error:  # servers raise what they like for a broken body
            message = f"the server could not read the body after {received} bytes: {type(error).__name__}"
            raise IncompleteBody(message, received=received, declared=left) from error
        if not chunk:
            break
        received += len(chunk)
        yield chunk
    if left is not None and received < left:
        message = (
            f"the body ended after {received} of {left} bytes: the sender closed the connection, or a WSGI "
            "middleware consumed the body"
        )
        raise IncompleteBody(message, received=received, declared=left)
