"""A WSGI environ as a request, and a body that is read no further than it goes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from support import SECRET, clock, headers_of, payload

from roovet_webhooks import IncompleteBody, WebhookReceiver
from roovet_webhooks.receiving.wsgi import CHUNK_BYTES, read_input, request_of


class Stream(io.BytesIO):
    """A body that notes what was asked of it."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.asked: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        self.asked.append(size)
        return super().read(size)


def environ_of(raw: bytes = b"", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - an environ holds anything
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/shop",
        "PATH_INFO": "/webhooks/roovet",
        "wsgi.input": Stream(raw),
        **more,
    }


def test_headers_come_from_the_environ() -> None:
    environ = environ_of(
        CONTENT_TYPE="application/json", CONTENT_LENGTH="", HTTP_X_ROOVET_SIGNATURE="t=1,v1=\xff", HTTP_X_ODD="漢"
    )
    request = request_of(environ, path_params={"tenant": "acme"}, native=environ)
    assert sorted(request.headers) == [
        (b"X-ODD", b"?"),  # no server sends what is not Latin-1; whoever does gets a refusal, not an error
        (b"X-ROOVET-SIGNATURE", b"t=1,v1=\xff"),
        (b"content-type", b"application/json"),
    ]
    assert (request.method, request.path) == ("POST", "/shop/webhooks/roovet")
    assert request.path_params == {"tenant": "acme"}
    assert request.native is environ
    assert request.header("x-roovet-signature") == "t=1,v1=\xff"


def test_an_environ_may_lack_its_paths() -> None:
    assert request_of({"REQUEST_METHOD": "GET", "wsgi.input": Stream(b"")}, native=None).path == ""


@pytest.mark.parametrize(
    ("more", "needs_length"),
    [
        ({}, False),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, False),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "body": b"{}"}, False),
    ],
)
def test_a_chunked_body_without_an_end_needs_a_length(more: dict[str, Any], *, needs_length: bool) -> None:
    body = more.pop("body", None)
    assert request_of(environ_of(**more), body=body, native=None).needs_length is needs_length


def test_a_chunked_body_that_the_server_does_not_end_is_refused_with_411() -> None:
    receiver = WebhookReceiver(SECRET, clock=clock)
    receiver.fallback(lambda _event: None)
    raw = payload()
    signature = headers_of(raw)["X-Roovet-Signature"]
    environ = environ_of(
        raw, CONTENT_TYPE="application/json", HTTP_TRANSFER_ENCODING="chunked", HTTP_X_ROOVET_SIGNATURE=signature
    )
    response = receiver.receive(request_of(environ, native=None))
    assert response.status == 411
    assert environ["wsgi.input"].asked == []


def test_a_body_is_read_to_its_length_and_no_further() -> None:
    environ = environ_of(b"x" * (CHUNK_BYTES + 5) + b"the next request", CONTENT_LENGTH=str(CHUNK_BYTES + 5))
    assert b"".join(read_input(environ)) == b"x" * (CHUNK_BYTES + 5)
    assert environ["wsgi.input"].asked == [CHUNK_BYTES, 5]


def test_a_body_that_the_server_ends_is_read_to_its_end() -> None:
    environ = {**environ_of(b"{}"), "wsgi.input_terminated": True}
    assert b"".join(read_input(environ)) == b"{}"


@pytest.mark.parametrize("length", [None, "", "0"])
def test_nothing_is_read_where_nothing_is_declared(length: str | None) -> None:
    environ = environ_of(b"not ours", CONTENT_LENGTH=length)
    assert list(read_input(environ)) == []
    assert environ["wsgi.input"].asked == []


def test_a_body_that_ends_early_is_incomplete() -> None:
    with pytest.raises(IncompleteBody) as caught:
        list(read_input(environ_of(b"abc", CONTENT_LENGTH="10")))
    assert (caught.value.received, caught.value.declared) == (3, 10)


@pytest.mark.parametrize("length", ["10", None])
def test_a_body_that_the_server_cannot_read_is_incomplete(length: str | None) -> None:
    class Broken(Stream):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.asked:
                message = "the chunk has no size"
                raise ValueError(message)
            return super().read(size)

    environ = {**environ_of(CONTENT_LENGTH=length), "wsgi.input_terminated": True, "wsgi.input": Broken(b"abc")}
    with pytest.raises(IncompleteBody, match="after 3 bytes: ValueError") as caught:
        list(read_input(environ))
    assert (caught.value.received, caught.value.declared) == (3, None if length is None else 10)
