"""Reads a raw HTTP request as a proxy, ``tcpdump -A``, a request bin or a browser shows it.

More lenient than a server where nothing can be read in two ways: lines may end in LF alone, a request line may
be missing, and a body that does not have its declared length is taken as it is and noted. Grammar: RFC 9112.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from typing import TYPE_CHECKING

from roovet_webhooks.cli.pasted import Pasted, Unreadable, about_method, without_mark

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_HEAD_BYTES = 65_536  # more than servers take

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) \S+ HTTP/[0-9](?:\.[0-9])?[ \t]*\r?\n" % _TOKEN)
# HTTP/2 has its request line in headers whose names begin with a colon.
_NAME = re.compile(rb":?%b" % _TOKEN)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")

# A packet of tcpdump begins with its time and, perhaps after the interface, its protocol.
_PACKET = rb"(?:[0-9]{4}-[0-9]{2}-[0-9]{2} )?[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]+ (?:\S+ +(?:In|Out) +)?IP6? .*"
_FIRST_PACKET = re.compile(_PACKET)
_NEXT_PACKET = re.compile(rb"\r?\n(?=%b)" % _PACKET)
_CAPTURED = re.compile(rb"(?:POST|PUT|GET) \S+ HTTP/1\.[01]\r?\n")


def is_request(content: bytes) -> bool:
    """Say whether a text begins as a raw request does; no JSON does."""
    return _REQUEST_LINE.match(content.removeprefix(BOM_UTF8)) is not None


def read_request(content: bytes) -> Pasted:
    """Read a raw HTTP/1.x request.

    Args:
        content: The request and nothing else, as it was saved. The body is as long as ``Content-Length`` says, or
            else all that follows the empty line; chunks are put together.

    Raises:
        Unreadable: It is no such request, or its head or its chunks are broken.
    """
    notes: list[str] = []
    content = without_mark(content, notes)
    if _FIRST_PACKET.match(content):
        content = _packet(content, notes)
    start = len(content) - len(content.lstrip(b"\r\n"))
    request_line = _REQUEST_LINE.match(content, start)
    if request_line is None:
        _check_headers_stand_first(content[start:])
    else:
        notes += about_method(request_line[1])
        start = request_line.end()
    headers, end = _headers(content, start, notes)
    return Pasted(headers, _body(headers, content[end:], notes), notes)


def _packet(content: bytes, notes: list[str]) -> bytes:
    """Return what the first packet with a request carries, without what tcpdump prints around it."""
    captured = _CAPTURED.search(content)
    if captured is None:
        message = "none of these packets of tcpdump begins a request; tcpdump -A shows them as text"
        raise Unreadable(message)
    following = _NEXT_PACKET.search(content, captured.start())
    notes.append(
        "This was printed by tcpdump: one packet of it was taken, and every byte outside ASCII has become a dot. "
        "Where that loses something of the body, record with tcpdump -w and save the stream with Wireshark."
    )
    return content[captured.start() : following.start() if following else None]


def _check_headers_stand_first(content: bytes) -> None:
    first = content[:MAX_HEAD_BYTES].partition(b"\n")[0].removesuffix(b"\r")
    if not content:
        message = "there is nothing in it"
    elif first.startswith(b"HTTP/"):
        message = "this is a response; what is needed is the request that it answers"
    elif first.startswith((b"{", b"[")):
        message = "this is a body alone; say how it was signed with --header, or give the whole request"
    elif _header(first) is None:
        message = "line 1 is neither a request line (POST /webhooks/roovet HTTP/1.1) nor a header (name: value)"
    else:
        return
    raise Unreadable(message)


def _headers(content: bytes, start: int, notes: list[str]) -> tuple[list[tuple[bytes, bytes]], int]:
    """Return the headers that begin at a place, and the place where the body begins."""
    headers: list[tuple[bytes, bytes]] = []
    number = content.count(b"\n", 0, start)
    at = start
    while at < len(content):
        number += 1
        end = content.find(b"\n", at, start + MAX_HEAD_BYTES)
        if end < 0:
            if len(content) > start + MAX_HEAD_BYTES:
                message = f"there is no empty line in the first {MAX_HEAD_BYTES} bytes, so this is no request"
                raise Unreadable(message)
            end = len(content)
        line = content[at:end].removesuffix(b"\r")
        at = end + 1
        if not line:
            return headers, at
        header = _header(line)
        if header is None:
            message = f"line {number} {_fault(line)}"
            raise Unreadable(message)
        if not header[0].startswith(b":"):
            headers.append(header)
    notes.append("There is no empty line after the headers, and so no body.")
    return headers, at


def _header(line: bytes) -> tuple[bytes, bytes] | None:
    # A colon at the start belongs to the name.
    name, colon, value = line[1:].partition(b":")
    name = line[:1] + name
    if not colon or _NAME.fullmatch(name) is None or b"\r" in value or b"\x00" in value:
        return None
    return name, value.strip(b" \t")


def _fault(line: bytes) -> str:
    if line[:1] in b" \t":
        return "begins with white space, which continues the header above it (obsolete folding): write it on one line"
    if b"\r" in line or b"\x00" in line:
        return "has a carriage return or a NUL inside"
    if re.match(rb"%b[ \t]+:" % _TOKEN, line):
        return "has white space before its colon, which no server accepts"
    return "is no header (name: value); an empty line has to stand between the headers and the body"


def _body(headers: Sequence[tuple[bytes, bytes]], rest: bytes, notes: list[str]) -> bytes:
    if b"chunked" in b",".join(_all(headers, b"transfer-encoding")).lower():
        if _CHUNK.match(rest):
            return _dechunked(rest)
        notes.append("The chunks that Transfer-Encoding speaks of have been put together already.")
        return rest
    lengths = set(_all(headers, b"content-length"))
    if not lengths:
        return rest
    declared = lengths.pop()
    if lengths or not _LENGTH.fullmatch(declared):
        notes.append("Content-Length is malformed or contradicts itself; all that follows the headers was taken.")
        return rest
    return _cut(rest, int(declared), notes)


def _all(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name.lower() == wanted]


def _cut(rest: bytes, declared: int, notes: list[str]) -> bytes:
    body, beyond = rest[:declared], rest[declared:]
    if len(body) < declared:
        notes.append(
            f"The body has {len(body)} bytes, and Content-Length says {declared}: it is not as it was sent. An editor "
            "takes away a line break at the end, or turns CRLF into LF; a copy may have been cut off."
        )
    elif beyond and not beyond.strip(b"\r\n"):
        notes.append("A line break beyond Content-Length was left out: an editor puts one at the end of a file.")
    elif beyond:
        notes.append(f"{len(beyond)} bytes beyond Content-Length were left out.")
    return body


def _dechunked(framed: bytes) -> bytes:
    chunks: list[bytes] = []
    at = 0
    while chunk := _CHUNK.match(framed, at):
        size = int(chunk[1], 16)
        if size == 0:
            # What follows the last chunk are trailers, which are no part of the body.
            return b"".join(chunks)
        at = chunk.end() + size
        chunks.append(framed[chunk.end() : at])
        end = _LINE_END.match(framed, at)
        if end is None:
            break
        at = end.end()
    message = f"the chunked body breaks off after chunk {len(chunks)}: it was cut, or an editor changed its line ends"
    raise Unreadable(message)
