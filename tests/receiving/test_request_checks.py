"""What is admitted before a byte of the body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from roovet_webhooks import WebhookRequest
from roovet_webhooks.errors import (
    DuplicateHeader,
    LengthRequired,
    MethodNotAllowed,
    PayloadTooLarge,
    RequestError,
    UnsupportedMediaType,
    VerificationError,
)
from roovet_webhooks.receiving.request_checks import Head, admit

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = (b"Content-Type", b"application/json")


def untouchable() -> Iterator[bytes]:
    message = "the body was read"
    raise AssertionError(message)
    yield b""


def head_of(*headers: tuple[bytes, bytes], method: str = "POST", needs_length: bool = False) -> Head:
    return admit(WebhookRequest(method, "/", headers, untouchable(), needs_length=needs_length), max_body_bytes=100)


def test_what_the_next_checks_need() -> None:
    head = head_of(
        (b"x-roovet-signature", b"t=1,v1=x"),
        JSON,
        (b"X-ROOVET-TIMESTAMP", b"1"),
        (b"Content-Length", b"100"),
        (b"host", b"example.org"),
    )
    assert head == Head(b"t=1,v1=x", b"1", 100)
    assert head_of(JSON) == Head(None, None, None)


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "post", "", "POST ", "P" * 500], ids=ascii)
def test_only_post(method: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        head_of(JSON, method=method)
    assert caught.value.method == method[:32]
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b"application/json;charset=UTF-8",
        b'application/json ;\tcharset="utf-8" ',
        b"application/json ",
        b"application/json\t",
        b"application/json\t;charset=utf-8",
        b"application/json;\t charset=utf-8\t",
    ],
    ids=repr,
)
def test_json_in_utf8(value: bytes) -> None:
    assert head_of((b"content-type", value)).length is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text/plain",
        b"application/jsonx",
        b"xapplication/json",
        b"application/json; charset=latin-1",
        b"application/json; charset=utf-8; charset=utf-8",
        b"application/json; charset=",
        b"application/json; boundary=x",
        b"application/json;",
        b"application/json, application/json",
        b"application/vnd.api+json",
        b"application/x-www-form-urlencoded",
        b"application/json\n",
        b"\xff\xfe",
        b"a" * 5000,
    ],
    ids=lambda value: repr(value[:40]),
)
def test_anything_else(value: bytes) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        head_of((b"content-type", value))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "value", [b"application/json", b'application/json ;\tcharset="utf-8" ', b"application/json;charset=utf-8"]
)
def test_every_media_type_one_character_away(value: bytes) -> None:
    for place in range(len(value)):
        before, after = value[:place], value[place + 1 :]
        for variant in (before + after, *(before + bytes([byte]) + after for byte in range(256))):
            essence, *parameters = variant.lower().split(b";")
            allowed = [[], [b"charset=utf-8"], [b'charset="utf-8"']]
            good = (
                essence.rstrip(b" \t") == b"application/json" and [one.strip(b" \t") for one in parameters] in allowed
            )
            try:
                head_of((b"content-type", variant))
            except UnsupportedMediaType:
                assert not good, variant
            else:
                assert good, variant


def test_every_length_one_character_away() -> None:
    for place in range(3):
        for byte in range(256):
            length = b"042"[:place] + bytes([byte]) + b"042"[place + 1 :]
            try:
                found = head_of(JSON, (b"content-length", length)).length
            except PayloadTooLarge:
                assert int(length) > 100
            except LengthRequired:
                assert not length.isdigit()
            else:
                assert found == int(length) <= 100


def test_no_content_type_or_two() -> None:
    with pytest.raises(UnsupportedMediaType, match="there are no Content-Type headers"):
        head_of()
    with pytest.raises(UnsupportedMediaType, match="there are 2 Content-Type headers"):
        head_of(JSON, JSON)
    with pytest.raises(UnsupportedMediaType, match="there are 3 Content-Type headers"):
        head_of(JSON, JSON, (b"content-type", b"text/plain"))


@pytest.mark.parametrize("values", [[b"identity"], [b"Identity"], [b"identity", b"identity"]], ids=repr)
def test_no_encoding(values: list[bytes]) -> None:
    assert head_of(JSON, *((b"content-encoding", value) for value in values)).length is None


@pytest.mark.parametrize(
    "values", [[b"gzip"], [b""], [b"identity", b"br"], [b"br", b"identity"], [b"identity, gzip"]], ids=repr
)
def test_an_encoding(values: list[bytes]) -> None:
    with pytest.raises(UnsupportedMediaType, match="Content-Encoding"):
        head_of(JSON, *((b"content-encoding", value) for value in values))


@pytest.mark.parametrize("value", [b"0", b"100", b"00099"])
def test_a_length_within_the_cap(value: bytes) -> None:
    assert head_of(JSON, (b"content-length", value)).length == int(value)


@pytest.mark.parametrize("value", [b"101", b"9" * 18])
def test_a_length_over_the_cap(value: bytes) -> None:
    with pytest.raises(PayloadTooLarge, match="at most 100 are accepted") as caught:
        head_of(JSON, (b"content-length", value))
    assert caught.value.limit == 100


@pytest.mark.parametrize(
    "value",
    [b"", b"-1", b"+1", b"1 ", b"0x10", b"1,1", b"1_0", b"\xb2", b"9" * 19, b"9" * 9999],
    ids=lambda value: repr(value[:20]),
)
def test_a_malformed_length(value: bytes) -> None:
    with pytest.raises(LengthRequired, match="malformed or ambiguous") as caught:
        head_of(JSON, (b"content-length", value))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("needs_length", [True, False])
def test_two_lengths(needs_length: bool) -> None:  # noqa: FBT001 - a case
    with pytest.raises(LengthRequired, match="ambiguous"):
        head_of(JSON, (b"content-length", b"5"), (b"Content-Length", b"5"), needs_length=needs_length)


def test_a_length_that_the_server_needs() -> None:
    with pytest.raises(LengthRequired, match="no Content-Length"):
        head_of(JSON, needs_length=True)
    assert head_of(JSON, (b"content-length", b"5"), needs_length=True).length == 5


@pytest.mark.parametrize("name", [b"X-Roovet-Signature", b"X-Roovet-Timestamp"])
def test_a_header_of_the_signature_twice(name: bytes) -> None:
    with pytest.raises(DuplicateHeader, match=f"there are 2 {name.decode()} headers"):
        head_of(JSON, (name, b"1"), (name.lower(), b"1"))


def test_the_cheapest_check_comes_first() -> None:
    bad = [(b"content-length", b"101"), (b"x-roovet-signature", b"1"), (b"x-roovet-signature", b"1")]
    with pytest.raises(MethodNotAllowed):
        head_of(*bad, method="GET")
    with pytest.raises(UnsupportedMediaType):
        head_of(*bad)
    with pytest.raises(PayloadTooLarge):
        head_of(JSON, *bad)


names = st.sampled_from(
    [
        b"content-type",
        b"Content-Encoding",
        b"content-length",
        b"x-roovet-signature",
        b"X-Roovet-Timestamp",
        b"x_roovet_signature",
    ]
)
values = st.one_of(st.binary(max_size=30), st.sampled_from([b"application/json", b"identity", b"5", b"t=1,v1=x"]))


@given(
    st.one_of(st.just("POST"), st.text(max_size=40)),
    st.lists(st.tuples(st.one_of(names, st.binary(max_size=10)), values), max_size=8),
    st.booleans(),
)
def test_total(method: str, headers: list[tuple[bytes, bytes]], needs_length: bool) -> None:  # noqa: FBT001 - a case
    try:
        head = head_of(*headers, method=method, needs_length=needs_length)
    except (RequestError, VerificationError):
        return
    assert head.length is None or 0 <= head.length <= 100
