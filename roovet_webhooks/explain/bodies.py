"""The bodies that may have been signed in place of the one that is held: each undoes a known mistake.

Every generator is lazy and goes from the likely to the unlikely, so that a search that stops has paid for no more
than it has tried. A large or huge body (over `LARGE` or `HUGE` bytes) gets the likely ones only.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from roovet_webhooks.explain.codes import finding
from roovet_webhooks.explain.encodings import from_base64
from roovet_webhooks.explain.forms import HUGE, LARGE, MAX_MADE, Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from roovet_webhooks.findings import Finding


_BEST = 2  # what a head of gzip says of level 9
_WHITE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_CHARSETS = ("latin-1", "cp1252")


class Variant(NamedTuple):
    """A body that may have been signed, in three parts.

    Attributes:
        lead: What stands before the core, so that nothing large is copied for a few bytes.
        core: The body without the white space at its end.
        end: That white space, as far as the variant itself says.
        finding: What is wrong if it is the one; ``None`` for the body that is held.
        any_end: Whether the finding also covers another white space at the end.
    """

    lead: bytes
    core: bytes
    end: bytes
    finding: Finding | None = None
    any_end: bool = False


def _variant(
    body: bytes, code: str, message: str, *, lead: bytes = b"", any_end: bool = False, **evidence: object
) -> Variant:
    core = body.rstrip(_WHITE)
    return Variant(lead, core, body[len(core) :], finding(code, message, **evidence), any_end)


def variants(raw: bytes, document: Document, signed_at: int | None) -> Iterator[Variant]:
    """Return the bodies that may have been signed, the one that is held first.

    Args:
        raw: The body that is held.
        document: The same, as JSON.
        signed_at: Unix seconds: a compressed body can hold the time.
    """
    core = raw.rstrip(_WHITE)
    yield Variant(b"", core, raw[len(core) :])
    yield from _trimmed(raw)
    yield from _with_other_line_breaks(raw)
    yield from _marked(raw)
    yield from _reencoded(raw)
    yield from _in_base64(raw)
    yield from _decompressed(raw)
    yield from _reserialized(document)
    yield from _compressed(raw, signed_at)


# White space


_PADDINGS = tuple(b" " * count for count in range(2, 65))
_ENDS = (b"", b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"\t", b" ", b" \n", b"\n ")


def ends_of(end: bytes, *, padded: bool) -> Iterator[bytes]:
    """Return what may have stood at the end of a body in place of some white space, that itself first.

    Args:
        end: The white space.
        padded: Whether it may have been a number of spaces as well.
    """
    yield end
    yield end.replace(b"\r\n", b"\n")
    yield end.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield end[:-1]
    yield end + b"\n"
    yield end + b"\r\n"
    yield from _ENDS
    yield from _PADDINGS if padded else ()


def end_finding(held: bytes, signed: bytes) -> Finding:
    """Say what it means that another white space was signed at the end than there is."""
    if _line_feeds(held) == _line_feeds(signed):
        message = "the line breaks at the end of the body were changed"
        return finding("body_crlf", message, signed="CRLF" if b"\r" in signed else "LF")
    change, verb = ("removed", "was signed and is missing") if len(signed) > len(held) else ("added", "was not signed")
    if not (held + signed).strip(b"\r\n"):
        return finding("body_trailing_newline", f"the line break at the end of the body {verb}", change=change)
    return finding("body_trimmed", f"white space at the end of the body {verb}", change=change)


def _line_feeds(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _trimmed(raw: bytes) -> Iterator[Variant]:
    core = raw.lstrip(_WHITE)
    lead = raw[: len(raw) - len(core)]
    if lead:
        message = "the white space at the beginning of the body was not signed"
        yield _variant(core, "body_trimmed", message, any_end=True, change="added")
    message = "white space at the beginning of the body was signed and is missing"
    for other in () if len(raw) > HUGE else (b"\n", b"\r\n", b" ", b"  ", b"\t"):
        if other != lead:
            yield _variant(core, "body_trimmed", message, lead=other, any_end=True, change="removed")


def _with_other_line_breaks(raw: bytes) -> Iterator[Variant]:
    message = "the line breaks of the body were signed as %s"
    feeds = raw
    if b"\r" in raw:
        feeds = _line_feeds(raw)
        yield _variant(feeds, "body_crlf", message % "LF", signed="LF")
    if b"\n" in feeds:
        yield _variant(feeds.replace(b"\n", b"\r\n"), "body_crlf", message % "CRLF", signed="CRLF")


def _marked(raw: bytes) -> Iterator[Variant]:
    if raw.startswith(_BOM):
        message = "the byte order mark at the beginning of the body was not signed"
        yield _variant(raw[len(_BOM) :], "body_bom", message, change="added")
    elif len(raw) <= HUGE:
        message = "a byte order mark at the beginning of the body was signed and is missing"
        yield _variant(raw, "body_bom", message, lead=_BOM, change="removed")


# Characters and encodings


def _reencoded(raw: bytes) -> Iterator[Variant]:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw[:4]:
        yield from _out_of_utf_16(raw)
    if raw.isascii():
        return
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        message = "the body is in %s; what was signed is the same in UTF-8"
        for charset in _CHARSETS:
            if (body := _recoded(raw, charset, "utf-8")) is not None:
                yield _variant(body, "body_reencoded", message % charset, held=charset, signed="utf-8")
        return
    message = "the body was taken for %s and encoded in UTF-8 once more"
    for charset in _CHARSETS:
        with suppress(UnicodeEncodeError):
            yield _variant(text.encode(charset), "body_reencoded", message % charset, taken_for=charset, side="here")
            break  # cp1252 gives the same or nothing where Latin-1 gives something
    message = "what was signed had been taken for %s and encoded in UTF-8 once more"
    for charset in () if len(raw) > HUGE else _CHARSETS:
        if (body := _recoded(raw, charset, "utf-8")) is not None:
            yield _variant(body, "body_reencoded", message % charset, taken_for=charset, side="sender")


def _out_of_utf_16(raw: bytes) -> Iterator[Variant]:
    message = "the body is in UTF-16, as PowerShell writes a file; what was signed is the same in UTF-8"
    charset = "utf-16" if raw[:1] in {b"\xff", b"\xfe"} else "utf-16-be" if raw[:1] == b"\0" else "utf-16-le"
    if (body := _recoded(raw, charset, "utf-8")) is not None:
        yield _variant(body, "body_reencoded", message, any_end=True, held="utf-16", signed="utf-8")


def _recoded(raw: bytes, source: str, target: str) -> bytes | None:
    try:
        return raw.decode(source).encode(target)
    except UnicodeError:
        return None


def _in_base64(raw: bytes) -> Iterator[Variant]:
    # Some write it in lines.
    body = from_base64(raw.replace(b"\r", b"").replace(b"\n", b""))
    if body is not None:
        yield _variant(body, "body_base64", "the body is in base64; what was signed is what it stands for")


# JSON


def _reserialized(document: Document) -> Iterator[Variant]:
    for text, words in document.forms():
        yield Variant(b"", text.rstrip(_WHITE), b"", reserialized(document, words), any_end=True)


_MADE_BY = {
    "jsonb": "; the body here is as PostgreSQL's jsonb writes it",
    "sort_keys": "; the keys of the body here are sorted",
}


def reserialized(document: Document, words: Sequence[str]) -> Finding:
    """Return what it means that the same JSON was signed in another form.

    Args:
        document: The body that is held.
        words: How the signed one is written.
    """
    form, via = ", ".join(words), document.made_by
    message = f"what was signed is the same JSON, written otherwise: {form}"
    if via is None:
        return finding("body_reserialized", message, form=form)
    return finding("body_reserialized", message + _MADE_BY[via], form=form, via=via)


# Compression


def compression_of(raw: bytes) -> str | None:
    """Return the name of the compression that a body shows by its first bytes."""
    if raw.startswith(b"\x1f\x8b"):
        return "gzip"
    if raw.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    return "deflate" if raw[:1] == b"\x78" and int.from_bytes(raw[:2], "big") % 31 == 0 else None


def _decompressed(raw: bytes) -> Iterator[Variant]:
    if compression_of(raw) is None and (raw.isascii() or raw.lstrip(_WHITE)[:1] in {b"{", b"["}):
        return
    for name, bits in (("gzip", 31), ("deflate", 15), ("deflate", -15)):
        machine = zlib.decompressobj(bits)
        try:
            body = machine.decompress(raw, MAX_MADE)
        except zlib.error:
            continue
        if machine.eof:
            message = f"the body is compressed ({name}); what was signed is the plain one"
            yield _variant(body, "body_compressed", message, encoding=name, held="compressed")
        return


def _compressed(raw: bytes, signed_at: int | None) -> Iterator[Variant]:
    """Return the body as a sender may have compressed it before it signed."""
    if len(raw) > LARGE:
        return
    times = (0,) if signed_at is None else (0, signed_at, signed_at - 1)
    for level in (6, 9):
        machine = zlib.compressobj(level, wbits=-15)
        deflated = machine.compress(raw) + machine.flush()
        tail = struct.pack("<LL", zlib.crc32(raw), len(raw))
        # The head tells the time, the level and the system: Unix, as zlib and PHP write it, or unknown, as Python does.
        for moment, system in product(times, (3, 255)):
            head = struct.pack("<BBBBLBB", 0x1F, 0x8B, 8, 0, moment & 0xFFFFFFFF, _BEST if level == 9 else 0, system)  # noqa: PLR2004 - zlib's best
            yield _packed(head + deflated + tail, "gzip")
        yield _packed(zlib.compress(raw, level), "deflate")


def _packed(body: bytes, encoding: str) -> Variant:
    message = f"the body was decompressed; what was signed is the compressed one ({encoding})"
    # White space at the end of compressed bytes is none.
    return Variant(b"", body, b"", finding("body_compressed", message, encoding=encoding, held="plain"))
