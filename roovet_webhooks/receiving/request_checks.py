"""What of a request is admitted before a byte of its body is read: method, media type, length, one signature.

The cheapest check comes first, and nothing here costs more than looking at a few headers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from roovet_webhooks.errors import (
    DuplicateHeader,
    LengthRequired,
    MethodNotAllowed,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from roovet_webhooks.signing.header import SIGNATURE_HEADER, TIMESTAMP_HEADER

if TYPE_CHECKING:
    from roovet_webhooks.messages import WebhookRequest

_JSON = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset=(?:utf-8|"utf-8")[ \t]*)?', re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,18}")

_CONTENT_TYPE, _ENCODING, _LENGTH_NAME = b"content-type", b"content-encoding", b"content-length"
_TRANSFER = b"transfer-encoding"
_SIGNATURE, _TIMESTAMP = SIGNATURE_HEADER.lower().encode(), TIMESTAMP_HEADER.lower().encode()
_LOOKED_AT = frozenset({_CONTENT_TYPE, _ENCODING, _LENGTH_NAME, _TRANSFER, _SIGNATURE, _TIMESTAMP})


class Head(NamedTuple):
    """What the checks that follow need of the headers.

    Attributes:
        signature: The one signature header, or ``None``.
        timestamp: The one unsigned timestamp header, or ``None``.
        length: The declared length in bytes, or ``None`` where none is declared.
    """

    signature: bytes | None
    timestamp: bytes | None
    length: int | None

    def __repr__(self) -> str:
        """Show the length, and nothing of the signature."""
        return f"Head(length={self.length})"


def admit(request: WebhookRequest, *, max_body_bytes: int) -> Head:
    """Check a request's method and headers.

    Args:
        request: The request; its body is not touched.
        max_body_bytes: The cap on the body, bytes.

    Raises:
        MethodNotAllowed: It is not POST.
        UnsupportedMediaType: It is not exactly ``application/json`` in UTF-8, or has a content encoding.
        LengthRequired: Its Content-Length is malformed or ambiguous, or absent where it is needed.
        PayloadTooLarge: Its declared length is over the cap.
        DuplicateHeader: A header of the signature stands more than once.
    """
    if request.method != "POST":
        message = f"the method is {request.method[:32]!r}; deliveries are sent with POST"
        raise MethodNotAllowed(message, method=request.method[:32])
    found: dict[bytes, bytes] = {}
    repeated: dict[bytes, list[bytes]] = {}
    for name, value in request.headers:
        key = name.lower()
        if key in _LOOKED_AT:
            if key in found:
                repeated.setdefault(key, [found[key]]).append(value)
            found[key] = value
    _check_media_type(found, repeated)
    length = _declared_length(found, repeated, needed=request.needs_length)
    if length is not None and length > max_body_bytes:
        message = f"the declared length is {length} bytes; at most {max_body_bytes} are accepted"
        raise PayloadTooLarge(message, limit=max_body_bytes)
    for key, header in ((_SIGNATURE, SIGNATURE_HEADER), (_TIMESTAMP, TIMESTAMP_HEADER)):
        if key in repeated:
            message = f"there are {len(repeated[key])} {header} headers; one delivery has one"
            raise DuplicateHeader(message)
    return Head(found.get(_SIGNATURE), found.get(_TIMESTAMP), length)


def _check_media_type(found: dict[bytes, bytes], repeated: dict[bytes, list[bytes]]) -> None:
    media_type = found.get(_CONTENT_TYPE)
    if media_type is None or _CONTENT_TYPE in repeated:
        count = len(repeated.get(_CONTENT_TYPE, ()))
        message = f"there are {count or 'no'} Content-Type headers; a delivery has one, application/json"
        raise UnsupportedMediaType(message)
    if media_type != b"application/json" and not _JSON.fullmatch(media_type):
        message = f"the Content-Type is {media_type[:80]!r}; deliveries are application/json in UTF-8"
        raise UnsupportedMediaType(message)
    if _ENCODING in found:
        encodings = repeated.get(_ENCODING, [found[_ENCODING]])
        if any(encoding.lower() != b"identity" for encoding in encodings):
            message = f"the Content-Encoding is {b', '.join(encodings)[:80]!r}; what was signed is the plain body"
            raise UnsupportedMediaType(message)


def _declared_length(found: dict[bytes, bytes], repeated: dict[bytes, list[bytes]], *, needed: bool) -> int | None:
    length = found.get(_LENGTH_NAME)
    if length is None:
        if needed:
            message = "there is no Content-Length, and this server does not tell where a body ends without one"
            raise LengthRequired(message)
        return None
    if _LENGTH_NAME in repeated or not _LENGTH.fullmatch(length):
        lengths = repeated.get(_LENGTH_NAME, [length])
        message = f"the Content-Length is malformed or ambiguous: {b', '.join(lengths)[:80]!r}"
        raise LengthRequired(message)
    if _TRANSFER in found:
        # See WebhookRequest.has_two_lengths: the connection is closed as well.
        message = "there are both a Content-Length and a Transfer-Encoding, so that the length is ambiguous"
        raise LengthRequired(message)
    return int(length)
