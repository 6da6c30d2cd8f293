"""Bytes written as text."""

from __future__ import annotations

import re
from base64 import b64decode

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


def from_base64(text: bytes) -> bytes | None:
    """Return what a text stands for in base64, either alphabet, padded or not; ``None`` where it is none."""
    if not _BASE64.fullmatch(text):
        return None
    plain = text.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    # No base64 has a length of one more than a multiple of four.
    return None if len(plain) % 4 == 1 else b64decode(plain + b"=" * (-len(plain) % 4))
