"""The grammar of the signature header, and the clock's two-sided judgement."""

from __future__ import annotations

import math
import re
import string
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from roovet_webhooks.errors import (
    FutureTimestamp,
    MalformedSignature,
    MissingSignature,
    StaleTimestamp,
    TimestampHeaderMismatch,
)
from roovet_webhooks.signing.header import check_timestamp, parse_signature

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B = "aa" * 32, "0b" * 32
T = "t=1762782800"

ACCEPTED: list[tuple[str, str, tuple[bytes, int, int]]] = [
    ("documented", f"{T},v1={A}", (b"1762782800", 1762782800, 1)),
    ("digest first", f"v1={A},{T}", (b"1762782800", 1762782800, 1)),
    ("zero", f"t=0,v1={A}", (b"0", 0, 1)),
    ("twelve digits", f"t=999999999999,v1={A}", (b"999999999999", 999999999999, 1)),
    ("two digests", f"{T},v1={A},v1={B}", (b"1762782800", 1762782800, 2)),
    ("eight digests", f"{T}" + f",v1={A}" * 8, (b"1762782800", 1762782800, 8)),
    ("other schemes", f'v0=anything;goes,{T},v1={A},v2=,x-y="z"', (b"1762782800", 1762782800, 1)),
    ("twelve items", ",".join([T, f"v1={A}", *["v2=x"] * 10]), (b"1762782800", 1762782800, 1)),
]

MALFORMED: list[tuple[str, str | bytes, str]] = [
    ("no t", f"v1={A}", "has no t"),
    ("no digest", T, "has no v1"),
    ("two t", f"{T},{T},v1={A}", r"more than one t \(item 2\)"),
    ("empty t", f"t=,v1={A}", "plain number"),
    ("negative t", f"t=-1,v1={A}", "plain number"),
    ("signed t", f"t=+1,v1={A}", "plain number"),
    ("leading zero", f"t=01,v1={A}", "plain number"),
    ("decimal t", f"t=1.5,v1={A}", "plain number"),
    ("underscore t", f"t=1_0,v1={A}", "plain number"),
    ("thirteen digits", f"t=1000000000000,v1={A}", "plain number"),
    ("hex t", f"t=0x10,v1={A}", "plain number"),
    ("arabic digits", f"t=\N{ARABIC-INDIC DIGIT ONE},v1={A}", "not key=value"),
    ("upper-case digest", f"{T},v1={A.upper()}", "has a v1 of 64 characters"),
    ("63 digits", f"{T},v1={A[:-1]}", "has a v1 of 63 characters"),
    ("65 digits", f"{T},v1={A}0", "has a v1 of 65 characters"),
    ("empty digest", f"{T},v1=", "has a v1 of 0 characters"),
    ("truncated digest", f"{T},v1={A[:32]}", "accept_truncated=True would take it"),
    ("not hex", f"{T},v1={'g' * 64}", "not 64 lower-case hex"),
    ("nine digests", f"{T}" + f",v1={A}" * 9, r"more than 8 v1 digests \(item 10\)"),
    ("thirteen items", ",".join([T, f"v1={A}", *["v2=x"] * 11]), "more than 12 items"),
    ("too long", f"{T},v1={A},x={'y' * 2048}", "longer than 2048 bytes"),
    ("white space", f"{T}, v1={A}", r"white space \(item 2\)"),
    ("tab in front", f"\t{T},v1={A}", "white space"),
    ("line break at the end", f"{T},v1={A}\n", "white space"),
    ("empty item", f"{T},,v1={A}", "not key=value"),
    ("trailing comma", f"{T},v1={A},", "not key=value"),
    ("no key", f"=x,{T},v1={A}", "not key=value"),
    ("no value sign", f"t,v1={A}", "not key=value"),
    ("two joined headers", f"{T},v1={A},{T},v1={A}", "more than one t"),
    ("nul", f"{T},v1={A}\x00", "not key=value"),
    ("latin-1 bytes", b"t=1,v1=" + b"\xff" * 64, "not key=value"),
    ("lone surrogate", f"{T},v1={A},x=\ud800", "not key=value"),
    ("word", "sha256", "not key=value"),
]


@pytest.mark.parametrize(("header", "expected"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_accepted(header: str, expected: tuple[bytes, int, int]) -> None:
    literal, timestamp, digests = parse_signature(header)
    assert (literal, timestamp, len(digests)) == expected
    assert parse_signature(header.encode()) == (literal, timestamp, digests)
    assert digests[0] == bytes.fromhex(A)


@pytest.mark.parametrize(("header", "fault"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_refused(header: str | bytes, fault: str) -> None:
    with pytest.raises(MalformedSignature, match=fault) as caught:
        parse_signature(header)
    place = re.search(r"\(item (\d+)\)$", str(caught.value))
    assert caught.value.item == (place and int(place[1]))
    assert A not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "item"),
    [
        *((f"x=y,{T},v1={A[:-1]}", 3), (f"x=y,{T},v1={A[:32]}", 3), (f"{T},v1={A},{T}", 3), (f"v1={A},t=01", 2)),
        *((f"{T},v1={A}, x=y", 3), (f" {T},v1={A}", 1), (f"{T}" + f",v1={A}" * 9, 10)),
        *((f"v1={A}", None), (T, None), (f"{T},v1={A},x={'y' * 2048}", None), (",".join(["x=y"] * 13), None)),
    ],
)
def test_the_item_at_fault_is_told(header: str, item: int | None) -> None:
    with pytest.raises(MalformedSignature) as caught:
        parse_signature(header)
    assert caught.value.item == item
    assert caught.value.evidence.get("item") == item


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (["t=1"], "not list; pass its one element"),
        (("t=1",), "not tuple; pass its one element"),
        (5, r"not int; pass request.headers.get\('NAME'\)"),
        ({"t": 1}, r"not dict; pass request.headers.get\('NAME'\)"),
    ],
)
def test_what_is_no_header_is_a_type_error(value: Any, hint: str) -> None:  # noqa: ANN401 - what it is not
    for name, call in (
        ("X-Roovet-Signature", lambda: parse_signature(value)),
        ("X-Roovet-Timestamp", lambda: check_timestamp(SIGNED, 1000, 300, value)),
    ):
        with pytest.raises(TypeError, match=f"the value of {name} must be str or bytes, {hint.replace('NAME', name)}"):
            call()


@pytest.mark.parametrize("header", [None, "", b""], ids=repr)
def test_missing(header: str | bytes | None) -> None:
    with pytest.raises(MissingSignature, match="there is no X-Roovet-Signature header"):
        parse_signature(header)


TOKEN = {*"!#$%&'*+.^_`|~-", *string.ascii_letters, *string.digits}
VALUE = set(map(chr, range(0x21, 0x7F))) - {","}


def read_slowly(header: str, lengths: set[int]) -> tuple[bytes, int, tuple[bytes, ...]] | None:
    """Read a header as the grammar in the module's docstring says, with nothing but string methods."""
    times: list[str] = []
    digests: list[str] = []
    for item in header.split(","):
        scheme, sign, value = item.partition("=")
        if not (sign and scheme) or set(scheme) - TOKEN or set(value) - VALUE:
            return None
        if scheme == "t":
            times.append(value)
        elif scheme == "v1":
            digests.append(value)
    good_digests = all(len(digest) in lengths and not set(digest) - set("0123456789abcdef") for digest in digests)
    if len(times) != 1 or not 1 <= len(digests) <= 8 or not good_digests:
        return None
    [literal] = times
    if not literal.isdigit() or len(literal) > 12 or (literal[0] == "0" and literal != "0"):
        return None
    return literal.encode(), int(literal), tuple(map(bytes.fromhex, digests))


EDGES = f"t=999999999999,v1={A}"
SWEPT = [
    f"{T},v1={A}",
    f"t=0,v1={B}",
    EDGES,
    f"v1={A},{EDGES},v1={B}",
    f"{T},x-1={A[:3]},v1={A[:32]}",
    f"{EDGES},~={A[:2]}",
]


def variants(header: str) -> Iterator[str]:
    """Yield a header with each character replaced by every byte, left out, and doubled; of a digest a few."""
    inside = {
        place for match in re.finditer("[0-9a-f]{32,}", header) for place in range(match.start() + 2, match.end())
    }
    for place in sorted(set(range(len(header))) - inside | {place for place in inside if place + 1 not in inside}):
        before, after = header[:place], header[place + 1 :]
        yield from (before + chr(byte) + after for byte in range(256))
        yield from (before + after, before + header[place] * 2 + after)


@pytest.mark.parametrize("accept_truncated", [False, True])
@pytest.mark.parametrize("header", SWEPT)
def test_every_header_one_character_away(header: str, accept_truncated: bool) -> None:  # noqa: FBT001 - a case
    lengths = {64, 32} if accept_truncated else {64}
    for variant in (header, *variants(header)):
        expected = read_slowly(variant, lengths)
        try:
            found = parse_signature(variant.encode("latin-1"), accept_truncated=accept_truncated)
        except MalformedSignature:
            assert expected is None, ascii(variant)
        else:
            assert found == expected, ascii(variant)


def test_the_longest_header_is_taken() -> None:
    head = f"{T},v1={A},x="
    header = head + "y" * (2048 - len(head))
    assert parse_signature(header)[1] == 1762782800
    with pytest.raises(MalformedSignature, match="longer than"):
        parse_signature(header + "y")


def test_truncated_digests_are_taken_where_they_are_accepted() -> None:
    _, _, digests = parse_signature(f"{T},v1={A[:32]},v1={B}", accept_truncated=True)
    assert [len(digest) for digest in digests] == [16, 32]
    with pytest.raises(MalformedSignature, match="31 characters"):
        parse_signature(f"{T},v1={A[:31]}", accept_truncated=True)


@given(st.one_of(st.none(), st.text(), st.binary(), st.text("tv10=,abcdef\n ", max_size=200)), st.booleans())
def test_total(header: str | bytes | None, accept_truncated: bool) -> None:  # noqa: FBT001 - a generated case
    try:
        literal, timestamp, digests = parse_signature(header, accept_truncated=accept_truncated)
    except (MissingSignature, MalformedSignature):
        return
    assert int(literal) == timestamp
    assert {len(digest) for digest in digests} <= {16, 32}


SIGNED = (b"1000", 1000, (b"",))


@pytest.mark.parametrize("now", [1000, 700, 1300, 999.5])
def test_a_skew_of_the_tolerance_is_accepted_both_ways(now: float) -> None:
    check_timestamp(SIGNED, now, 300)


def test_stale() -> None:
    with pytest.raises(StaleTimestamp, match="signed 301 s ago; 300 s are accepted") as caught:
        check_timestamp(SIGNED, 1301, 300)
    assert (caught.value.skew, caught.value.tolerance) == (-301, 300)


def test_future() -> None:
    with pytest.raises(FutureTimestamp, match="signed 301 s in the future") as caught:
        check_timestamp(SIGNED, 699, 300)
    assert (caught.value.skew, caught.value.tolerance) == (301, 300)


def test_no_tolerance_means_the_very_second() -> None:
    check_timestamp(SIGNED, 1000, 0)
    with pytest.raises(StaleTimestamp):
        check_timestamp(SIGNED, 1000.001, 0)
    with pytest.raises(FutureTimestamp):
        check_timestamp(SIGNED, 999.999, 0)


@pytest.mark.parametrize(
    ("now", "error"), [(math.nan, FutureTimestamp), (math.inf, StaleTimestamp), (-math.inf, FutureTimestamp)]
)
def test_a_clock_out_of_its_mind_refuses(now: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_timestamp(SIGNED, now, 300)


@pytest.mark.parametrize("header", [None, "1000", b"1000"], ids=repr)
def test_the_unsigned_timestamp_may_be_absent_or_the_same(header: str | bytes | None) -> None:
    check_timestamp(SIGNED, 1000, 300, header)


@pytest.mark.parametrize(
    "header",
    ["", b"", "1001", "01000", " 1000", "1000.0", b"1000\n", "\N{FULLWIDTH DIGIT ONE}000", "\ud800", b"\xff"],
    ids=ascii,
)
def test_the_unsigned_timestamp_must_not_differ(header: str | bytes) -> None:
    with pytest.raises(TimestampHeaderMismatch, match="X-Roovet-Timestamp differs") as caught:
        check_timestamp(SIGNED, 1010, 300, header)
    assert caught.value.skew == -10


def test_age_is_told_before_a_contradiction() -> None:
    with pytest.raises(StaleTimestamp):
        check_timestamp(SIGNED, 2000, 300, "1001")
