"""Find, parse and check ``X-Roovet-Signature``. No key, no I/O.

::

    header  = item *( "," item )            at most 2048 bytes and 12 items, no white space
    item    = "t=" seconds                  exactly one; 0 or a number of up to 12 digits without leading zeros
            / "v1=" digest                  one to eight; 64 lower-case hex digits
            / scheme "=" value              any other scheme: ignored, so that Roovet can add one

Source: the vendor document, "Webhooks & Signing" (``t=<unix>,v1=<hmac>``). Its example digest has 32 hex
digits where SHA-256 has 64; with ``accept_truncated`` the leftmost 128 bits are taken as well (RFC 2104,
section 5). Anything that could be read in two ways is refused.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn, TypeAlias, cast

from roovet_webhooks.errors import (
    DuplicateHeader,
    FutureTimestamp,
    MalformedSignature,
    MissingSignature,
    StaleTimestamp,
    TimestampHeaderMismatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SIGNATURE_HEADER = "X-Roovet-Signature"
TIMESTAMP_HEADER = "X-Roovet-Timestamp"

MAX_HEADER_BYTES = 2048
MAX_ITEMS = 12
MAX_DIGESTS = 8
DIGEST_BYTES = 32
TRUNCATED_DIGEST_BYTES = 16

_SECONDS = re.compile(rb"0|[1-9][0-9]{0,11}")
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_DIGEST_OR_TRUNCATED = re.compile(rb"[0-9a-f]{64}|[0-9a-f]{32}")
# The one shape that Roovet documents, read in one step: a third of the time of going item by item. Whoever matches it
# checks the digits with islower and unhexlify, which cost a third of a character class here.
DOCUMENTED = re.compile(rb"t=([1-9][0-9]{0,11}),v1=(.{64})").fullmatch
_ITEM = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([!-+\--~]*)")


# A plain tuple because it is made once a delivery and unpacked at once.
SignatureHeader: TypeAlias = tuple[bytes, int, tuple[bytes, ...]]
"""What a header says.

The text of ``t`` as it stands in the header, since the MAC covers these bytes; the same as a number, Unix seconds; and
the given digests, 32 bytes each (16 when truncated ones are accepted).
"""


def parse_signature(header: str | bytes | None, *, accept_truncated: bool = False) -> SignatureHeader:
    """Read a signature header.

    Args:
        header: The value of ``X-Roovet-Signature``, or ``None`` when there is no such header.
        accept_truncated: Whether a digest of 32 hex digits (128 bits) is taken as well.

    Returns:
        The literal text of ``t``, the same as Unix seconds, and the digests as bytes.

    Raises:
        MissingSignature: There is no header, or it is empty.
        MalformedSignature: It does not follow the grammar.
        TypeError: It is neither text nor bytes.
    """
    if not isinstance(header, str | bytes | None):
        raise not_a_header(SIGNATURE_HEADER, header)
    if not header:
        message = f"there is no {SIGNATURE_HEADER} header"
        raise MissingSignature(message)
    if isinstance(header, str):
        # Total: what cannot be ASCII becomes bytes that the grammar refuses.
        header = header.encode("utf-8", "surrogatepass")
    documented = DOCUMENTED(header)
    if documented is not None:
        literal, digits = documented.groups()
        # Digits without a single letter, one digest in 10^13, fail islower and are read item by item.
        try:
            if digits.islower():
                return literal, int(literal), (unhexlify(digits),)
        except ValueError:
            pass  # not hex digits: the items below say so
    return _parse_items(header, _DIGEST_OR_TRUNCATED if accept_truncated else _DIGEST)


def _parse_items(header: bytes, digest_form: re.Pattern[bytes]) -> SignatureHeader:
    if len(header) > MAX_HEADER_BYTES:
        _malformed(f"is longer than {MAX_HEADER_BYTES} bytes")
    items = header.split(b",")
    if len(items) > MAX_ITEMS:
        _malformed(f"has more than {MAX_ITEMS} items")
    seconds: list[bytes] = []
    digests: list[bytes] = []
    for place, item in enumerate(items, start=1):
        match = _ITEM.fullmatch(item)
        if match is None:
            _malformed("has an item that is not key=value without white space", place)
        scheme, value = match.groups()
        if scheme == b"t":
            _take_seconds(value, seconds, place)
        elif scheme == b"v1":
            if not digest_form.fullmatch(value):
                _malformed(_digest_fault(value), place)
            if len(digests) == MAX_DIGESTS:
                _malformed(f"has more than {MAX_DIGESTS} v1 digests", place)
            digests.append(unhexlify(value))
    if not (seconds and digests):
        _malformed("has no v1 digest" if seconds else "has no t")
    return seconds[0], int(seconds[0]), tuple(digests)


def _take_seconds(value: bytes, seconds: list[bytes], place: int) -> None:
    if seconds:
        _malformed("has more than one t", place)
    if not _SECONDS.fullmatch(value):
        _malformed("has a t that is not a plain number of Unix seconds", place)
    seconds.append(value)


def _digest_fault(value: bytes) -> str:
    if len(value) == 2 * TRUNCATED_DIGEST_BYTES:
        return "has a v1 of 32 hex digits, where SHA-256 has 64 (accept_truncated=True would take it)"
    return f"has a v1 of {len(value)} characters that is not 64 lower-case hex digits"


def _malformed(fault: str, item: int | None = None) -> NoReturn:
    where = f" (item {item})" if item else ""
    message = f"the {SIGNATURE_HEADER} header {fault}{where}"
    raise MalformedSignature(message, item=item)


def not_a_header(name: str, value: object) -> TypeError:
    """Return the error for what cannot be the value of a header, such as a list of values."""
    kind = type(value).__name__
    hint = "pass its one element" if kind in {"list", "tuple"} else f"pass request.headers.get({name!r})"
    return TypeError(f"the value of {name} must be str or bytes, not {kind}; {hint}")


def check_timestamp(
    signature: SignatureHeader,
    now: float,
    tolerance: float,
    timestamp_header: str | bytes | None = None,
) -> None:
    """Refuse a signature that is too old, from the future, or contradicted by ``X-Roovet-Timestamp``.

    Args:
        signature: The parsed header.
        now: Our clock, Unix seconds.
        tolerance: Seconds accepted in both directions; a skew of exactly this much is accepted.
        timestamp_header: The unsigned ``X-Roovet-Timestamp``; it may be absent, and must else equal ``t``.

    Raises:
        StaleTimestamp: ``t`` lies further in the past than the tolerance.
        FutureTimestamp: ``t`` lies further in the future than the tolerance.
        TimestampHeaderMismatch: The unsigned header says something else than ``t``.
        TypeError: The unsigned header is neither text nor bytes.
    """
    literal, timestamp, _ = signature
    skew = timestamp - now
    if skew < -tolerance:
        message = f"signed {-skew:.0f} s ago; {tolerance:g} s are accepted"
        raise StaleTimestamp(message, skew=skew, tolerance=tolerance)
    # Written so that a clock that returns NaN refuses: every comparison with NaN is false.
    if not skew <= tolerance:
        message = f"signed {skew:.0f} s in the future; {tolerance:g} s are accepted"
        raise FutureTimestamp(message, skew=skew, tolerance=tolerance)
    if timestamp_header is not None:
        if isinstance(timestamp_header, str):
            timestamp_header = timestamp_header.encode("utf-8", "surrogatepass")
        elif not isinstance(timestamp_header, bytes):
            raise not_a_header(TIMESTAMP_HEADER, timestamp_header)
        if timestamp_header != literal:
            message = f"{TIMESTAMP_HEADER} differs from the signed t"
            raise TimestampHeaderMismatch(message, skew=skew, tolerance=tolerance)


Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]] | str | bytes | None
"""The headers of a request, as a mapping or as pairs; or the signature header's text itself."""


def signature_of(headers: Headers) -> tuple[str | bytes | None, str | bytes | None]:
    """Return the values of ``X-Roovet-Signature`` and ``X-Roovet-Timestamp``, ``None`` for one that is absent.

    Raises:
        DuplicateHeader: One of them stands more than once.
        TypeError: These are no headers, or a value is neither text nor bytes.
    """
    if headers is None or isinstance(headers, str | bytes):
        return headers, None
    found: dict[str, list[str | bytes]] = {SIGNATURE_HEADER.lower(): [], TIMESTAMP_HEADER.lower(): []}
    for name, value in _pairs(headers):
        text = name.decode("latin-1") if isinstance(name, bytes) else name
        if (values := found.get(text.lower())) is not None and value is not None:
            if not isinstance(value, str | bytes):
                raise not_a_header(text, value)
            values.append(value)
    signatures, timestamps = found.values()
    if len(signatures) > 1 or len(timestamps) > 1:
        message = f"{SIGNATURE_HEADER} or {TIMESTAMP_HEADER} stands more than once; one delivery has one of each"
        raise DuplicateHeader(message)
    return (signatures[0] if signatures else None), (timestamps[0] if timestamps else None)


def _pairs(headers: object) -> Iterator[tuple[str | bytes, object]]:
    """Yield names and values of headers.

    Raises:
        TypeError: They are neither a mapping nor pairs, or a name is neither text nor bytes.
    """
    # Not every mapping of headers is a Mapping: that of the standard library's http.client has items, and no more.
    items: Callable[[], Iterable[object]] | None = getattr(headers, "items", None)
    pairs = items() if callable(items) else headers
    if not isinstance(pairs, Iterable):
        what = f"a {type(headers).__name__}"
        raise _no_headers(what)
    for pair in cast("Iterable[object]", pairs):
        kind = type(pair).__name__
        if not (isinstance(pair, tuple | list) and len(cast("Sequence[object]", pair)) == 2):  # noqa: PLR2004 - a pair
            what = f"a {type(headers).__name__} with a {kind} in it"
            raise _no_headers(what)
        name, value = cast("tuple[object, object]", pair)
        if not isinstance(name, str | bytes):
            what = f"a {type(headers).__name__} with a name that is a {type(name).__name__}"
            raise _no_headers(what)
        yield name, value


def _no_headers(what: str) -> TypeError:
    return TypeError(
        "headers must be a mapping, pairs of name and value, or the text of the signature header: "
        f"construct_event(raw, request.headers, secret); this is {what}"
    )
