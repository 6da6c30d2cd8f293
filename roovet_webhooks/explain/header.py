"""What the headers were meant to say: read with more patience than `verify` has, and told fault by fault.

The grammar stays where it is, in `signature`: here a header is mended where the fault has a name, and what is left
over is put to the grammar again, which says what else is wrong.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias, cast

from roovet_webhooks.errors import (
    ConfigurationError,
    DuplicateHeader,
    FutureTimestamp,
    MalformedSignature,
    MissingSignature,
    TimestampError,
    TimestampHeaderMismatch,
)
from roovet_webhooks.explain.codes import finding
from roovet_webhooks.explain.encodings import from_base64
from roovet_webhooks.signing.header import (
    DIGEST_BYTES,
    MAX_DIGESTS,
    MAX_HEADER_BYTES,
    MAX_ITEMS,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    TRUNCATED_DIGEST_BYTES,
    check_timestamp,
    parse_signature,
    signature_of,
)
from roovet_webhooks.signing.mac import OTHERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roovet_webhooks.findings import Finding
    from roovet_webhooks.signing.header import Headers

_SIGNATURE, _TIMESTAMP = SIGNATURE_HEADER.lower(), TIMESTAMP_HEADER.lower()
_ENCODING = "content-encoding"

_PASTED_NAME = re.compile(rb"\A\s*x-roovet-signature\s*:\s*", re.IGNORECASE)
_SPACED_KEY = re.compile(rb"\b(t|v1)\s*=\s*", re.IGNORECASE)
_BEGINNING = re.compile(rb"(?:\A|[,;])\s*t=")
_BETWEEN_ITEMS = re.compile(rb"[,;\s]+")
_AROUND = b" \t\r\n\"'"
_SECONDS = re.compile(rb"\+?0*([0-9]{1,13})(?:\.[0-9]*)?")
_MILLISECONDS = re.compile(rb"[1-9][0-9]{12}")
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2})+")
_LENGTHS = frozenset({DIGEST_BYTES, *OTHERS})
_MAX_STATED = 4  # values of t that are tried
_MAX_READ = 2 * MAX_ITEMS  # items of a malformed header that are looked at
# A digest that the grammar has nothing against.
_SOUND = b"v1=" + b"0" * (2 * DIGEST_BYTES)


Strict: TypeAlias = tuple[str | bytes | None, str | bytes | None]


class Reading:
    """What the headers say, and what is wrong with them.

    Args:
        headers: As `explain` takes them.
        now: Our clock, Unix seconds.
        tolerance: Seconds accepted in both directions.
        accept_truncated: Whether a digest of 128 bits is no fault.

    Attributes:
        strict: What `verify` is given: signature and unsigned timestamp. ``None`` where it has no say, because a
            header stands twice or is no text.
        literals: What may have been signed as ``t``, the most likely first.
        unsigned: The value of ``X-Roovet-Timestamp``, where there is one.
        digests: The given digests, as bytes: 32 each where they are whole and HMAC-SHA256's.
        faults: What is wrong with the form of the signature.
        encoding: What there is to tell of a content encoding.

    Raises:
        ConfigurationError: They are no headers at all.
    """

    def __init__(self, headers: Headers, *, now: float, tolerance: float, accept_truncated: bool) -> None:
        lines = _Lines(headers)
        self._now = now
        self._tolerance = tolerance
        self._timestamps = lines.values(_TIMESTAMP)
        self.strict: Strict | None
        self.faults: list[Finding]
        self.strict, self.faults = _strictly(lines, accept_truncated=accept_truncated)
        self.encoding: Finding | None = _encoding(lines.values(_ENCODING))
        self.digests: tuple[bytes, ...]
        self.unsigned: bytes | None = self._timestamps[0].strip(_AROUND) if self._timestamps else None
        if self.strict is not None and not self.faults:
            # What the grammar takes is read by the grammar alone.
            literal, _, self.digests = parse_signature(self.strict[0], accept_truncated=accept_truncated)
            self._stated = {literal: literal}
        else:
            items = [item for value in lines.values(_SIGNATURE)[:MAX_DIGESTS] for item in _items(value)]
            self._stated, self.digests = _literals(items), tuple(_digests(items))
        self.literals: tuple[bytes, ...] = tuple(self._stated) or (() if self.unsigned is None else (self.unsigned,))

    def late(self, literal: bytes | None = None) -> list[Finding]:
        """Say what is wrong with the time.

        Args:
            literal: Which ``t`` counts: the one that was signed. Where that is not known there has to be one only.
        """
        stated = {self._stated[literal]} if literal in self._stated else set(self._stated.values())
        return list(_late(stated.pop(), self._timestamps, self._now, self._tolerance)) if len(stated) == 1 else []

    def seconds(self, literal: bytes | None = None) -> int | None:
        """Return when it says it was signed, Unix seconds; ``literal`` as in `late`."""
        stated = literal or next(iter(self._stated), None)
        return None if stated is None else _seconds_of(stated)


class _Lines:
    """The header lines that matter, however they are called and whatever they are."""

    def __init__(self, headers: Headers) -> None:
        self.named: dict[str, list[object]] = {_SIGNATURE: [], _TIMESTAMP: [], _ENCODING: []}
        self.alias: str | None = None
        aliases: dict[str, list[object]] = {_SIGNATURE: [], _TIMESTAMP: [], _ENCODING: []}
        for name, value in _pairs(headers):
            text = name.decode("latin-1") if isinstance(name, bytes) else name
            if not isinstance(text, str):
                continue
            if (values := self.named.get(text.lower())) is not None:
                values.append(value)
            # The names of a CGI or WSGI environ, of PHP's $_SERVER and of Django's request.META.
            elif (values := aliases.get(alias := text.lower().replace("_", "-").removeprefix("http-"))) is not None:
                values.append(value)
                self.alias = text if alias == _SIGNATURE else self.alias
        if self.named[_SIGNATURE]:
            self.alias = None
        elif self.alias is not None:
            self.named = {name: values or aliases[name] for name, values in self.named.items()}

    def values(self, name: str) -> list[bytes]:
        """Return the values of a header as bytes; a list stands for as many lines."""
        return [_encode(part) for value in self.named[name] for part in _parts(value) if isinstance(part, str | bytes)]


def _pairs(headers: Headers) -> Iterable[tuple[object, object]]:
    if headers is None:
        return ()
    if isinstance(headers, str | bytes):
        return ((SIGNATURE_HEADER, headers),)
    pairs: object = cast("Mapping[object, object]", headers).items() if isinstance(headers, Mapping) else headers
    try:
        return [(name, value) for name, value in cast("Iterable[tuple[object, object]]", pairs)]
    except (TypeError, ValueError):
        message = (
            "headers must be a mapping, pairs of name and value, or the text of the signature header, "
            f"not {type(pairs).__name__}"
        )
        raise ConfigurationError(message) from None


def _parts(value: object) -> Iterable[object]:
    return cast("Iterable[object]", value) if isinstance(value, list | tuple) else (value,)


def _encode(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


# What is wrong with the form


def _strictly(lines: _Lines, *, accept_truncated: bool) -> tuple[Strict | None, list[Finding]]:
    """Read the headers as `verify` does, and say at which faults it stops."""
    if lines.alias is not None:
        message = f"there is no {SIGNATURE_HEADER} header, but one under the name {lines.alias}"
        return (None, None), [finding("missing_signature", message, found=lines.alias)]
    named = [(name, value) for name in (_SIGNATURE, _TIMESTAMP) for value in lines.named[name]]
    faults: list[Finding] = []
    for name, value in named:
        if not isinstance(value, str | bytes | None):
            kind = type(value).__name__
            message = f"the value of {_proper(name)} is no text but a {kind}"
            faults.append(finding("malformed_signature", message, type=kind))
    if faults:
        return None, faults
    texts = cast("list[tuple[str, str | bytes]]", named)  # or None, which verify takes for an absent header
    try:
        signature, timestamp = signature_of(texts)
    except DuplicateHeader:
        return None, _repeated(lines)
    try:
        parse_signature(signature, accept_truncated=accept_truncated)
    except MissingSignature as error:
        faults.append(finding("missing_signature", str(error)))
    except MalformedSignature:
        faults += _malformed(_encode(signature or b""), accept_truncated=accept_truncated)
    return (signature, timestamp), faults


def _proper(name: str) -> str:
    return SIGNATURE_HEADER if name == _SIGNATURE else TIMESTAMP_HEADER


def _repeated(lines: _Lines) -> list[Finding]:
    found: list[Finding] = []
    for name in (_SIGNATURE, _TIMESTAMP):
        values = lines.named[name]
        if len(values) > 1:
            same = len(set(values)) == 1
            message = (
                f"there are {len(values)} {_proper(name)} headers, {'all the same' if same else 'not all the same'}"
            )
            found.append(finding("duplicate_header", message, header=_proper(name), count=len(values), same=same))
    return found


def _malformed(header: bytes, *, accept_truncated: bool) -> Iterator[Finding]:
    """Name the faults of a header that the grammar refuses: one at least."""
    # A byte and an item more than the grammar takes are enough for it to see.
    header = header[: MAX_HEADER_BYTES + 1]
    count = len(_BEGINNING.findall(header))
    if count > 1:
        message = f"{count} {SIGNATURE_HEADER} headers stand in one, as when a server joins them with a comma"
        yield finding("duplicate_header", message, header=SIGNATURE_HEADER, count=count, joined=True)
        return
    items = header.split(b",", MAX_ITEMS + 1)[: MAX_ITEMS + 1]
    # Where each item begins, from 1.
    positions = list(accumulate((len(item) + 1 for item in items), initial=1))
    for place, item in enumerate(items):
        where = {"item": place + 1, "position": positions[place]}
        if item.startswith(b"t=") and _MILLISECONDS.fullmatch(item[2:]):
            items[place] = item[:-3]
            message = f"t has 13 digits, so that it counts milliseconds (item {place + 1})"
            yield finding("timestamp_in_milliseconds", message, **where)
        elif item.startswith(b"v1="):
            for code, message, evidence in _digest_faults(item[3:], accept_truncated=accept_truncated):
                items[place] = _SOUND
                yield finding(code, f"{message} (item {place + 1})", **where, **evidence)
    try:
        parse_signature(b",".join(items), accept_truncated=accept_truncated)
    except MalformedSignature as error:
        if error.item is None:
            yield finding("malformed_signature", str(error))
        else:
            position = positions[error.item - 1]
            message = f"{error}, at character {position}"
            yield finding("malformed_signature", message, item=error.item, position=position)


def _digest_faults(value: bytes, *, accept_truncated: bool) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Return code, message and evidence of each fault that has a name, in how a digest is written."""
    digest, form = _read_digest(value)
    if digest is None:
        return
    if form:
        yield "base64_digest", f"the digest is written in {form}", {"form": form}
        return
    if len(digest) == TRUNCATED_DIGEST_BYTES:
        if not accept_truncated:
            yield "truncated_digest", "the digest has 32 hex digits, where SHA-256 has 64", {"digits": len(value)}
    elif len(digest) != DIGEST_BYTES:
        message = f"the digest has {len(value)} hex digits, as {OTHERS[len(digest)][0]} has, where SHA-256 has 64"
        yield "malformed_signature", message, {"digits": len(value)}
    if value != value.lower():
        yield "uppercase_digest", "the digest has upper-case hex digits", {}


# What it says all the same


def _items(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return the items of a header as key and value, whatever stands around and between them."""
    header = _PASTED_NAME.sub(b"", header[:MAX_HEADER_BYTES], count=1)
    header = _SPACED_KEY.sub(rb"\1=", header)
    for item in _BETWEEN_ITEMS.split(header, _MAX_READ)[:_MAX_READ]:
        key, equals, value = item.strip(_AROUND).partition(b"=")
        yield (key.lower(), value.strip(_AROUND)) if equals else (b"", key)


def _literals(items: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return what may have been signed as t, and what stands in the header for it."""
    found: dict[bytes, bytes] = {}
    for value in list(dict.fromkeys(value for key, value in items if key == b"t" and value))[:_MAX_STATED]:
        found.setdefault(value, value)
        seconds = _seconds_of(value)
        if seconds is not None:
            found.setdefault(b"%d" % seconds, value)
    return found


def _digests(items: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Return the digests of the items ``v1``; where there is none, whatever else looks like one."""
    values = [value for key, value in items if key == b"v1"]
    for value in (values or [value for key, value in items if key != b"t"])[:MAX_DIGESTS]:
        digest, _ = _read_digest(value)
        if digest is not None:
            yield digest


def _read_digest(value: bytes) -> tuple[bytes | None, str]:
    """Return a digest as bytes, ``None`` where it is none, and how it is written where that is not in hex."""
    if _HEX.fullmatch(value):
        digest = unhexlify(value)
        return (digest if len(digest) in _LENGTHS else None), ""
    decoded = from_base64(value) or b""
    if len(decoded) == 2 * DIGEST_BYTES and _HEX.fullmatch(decoded):
        return unhexlify(decoded), "base64 of its hex digits"
    return (decoded, "base64") if len(decoded) == DIGEST_BYTES else (None, "")


def _seconds_of(literal: bytes) -> int | None:
    match = _SECONDS.fullmatch(literal)
    if match is None:
        return None
    return int(match[1]) // 1000 if _MILLISECONDS.fullmatch(literal) else int(match[1])


# What is wrong with the time


def _late(stated: bytes, timestamps: list[bytes], now: float, tolerance: float) -> Iterator[Finding]:
    seconds = _seconds_of(stated)
    if seconds is None:
        return
    try:
        check_timestamp((stated, seconds, ()), now, tolerance)
    except TimestampError as error:
        code = "future" if isinstance(error, FutureTimestamp) else "stale"
        yield finding(code, str(error), skew=error.skew, tolerance=tolerance)
    if len(timestamps) != 1:
        return
    (unsigned,) = timestamps
    try:
        # At the very time of signing, so that nothing but the unsigned header can be wrong.
        check_timestamp((stated, seconds, ()), seconds, tolerance, unsigned)
    except TimestampHeaderMismatch as error:
        yield _contradiction(str(error), stated, seconds, unsigned)


def _contradiction(fault: str, stated: bytes, seconds: int, unsigned: bytes) -> Finding:
    parts = [part.strip(_AROUND) for part in unsigned.split(b",")]
    if len(parts) > 1 and set(parts) == {stated}:
        message = f"{len(parts)} {TIMESTAMP_HEADER} headers stand in one, as when a server joins them with a comma"
        return finding("duplicate_header", message, header=TIMESTAMP_HEADER, count=len(parts), joined=True)
    other = _seconds_of(unsigned)
    if other is None:
        return finding("timestamp_header_mismatch", f"{fault}: it is no plain number of Unix seconds")
    by = f", by {other - seconds:+d} s" if other != seconds else ": it is the same time, written otherwise"
    return finding("timestamp_header_mismatch", f"{fault}{by}", difference=other - seconds)


def _encoding(values: list[bytes]) -> Finding | None:
    encodings = [value for value in values if value.strip().lower() not in {b"", b"identity"}]
    if not encodings:
        return None
    name = encodings[0].strip().lower().decode("latin-1")
    shown = name if name in {"gzip", "x-gzip", "deflate", "br", "zstd", "compress"} else "one that is not known here"
    message = f"the Content-Encoding is {shown}; what Roovet signs and sends is the plain body"
    return finding("body_compressed", message, encoding=shown)
