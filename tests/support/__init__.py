"""What tests share beside `roovet_webhooks.testing`: the secret of the vectors, and deliveries put together by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from roovet_webhooks import Signer, WebhookRequest, testing
from roovet_webhooks.testing.bodies import body_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]

SECRET = "whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728"
OTHER_SECRET = "whsec_00000000000000000000000000000000"
NOW = testing.NOW
PATH = testing.PATH
REFUSED = {
    "error": {
        "type": "verification_failed",
        "code": "400",
        "message": "The delivery could not be verified.",
        "param": None,
    }
}

clock = testing.Clock()


def secrets_written_down() -> Iterator[bytes]:
    """Yield every signing secret and API key that stands in the repository: nobody may see one of them."""
    pages = [*ROOT.glob("*.md"), *(page for name in ("docs", "tests") for page in (ROOT / name).rglob("*.[mp][dy]"))]
    sources = [*pages, *(path for name in ("examples", "roovet_webhooks") for path in (ROOT / name).rglob("*.py"))]
    for path in sources:
        yield from re.findall(rb"(?:whsec|rvpk)_[0-9A-Za-z_]{8,}", path.read_bytes())


def payload(event: str = "order.created", **fields: object) -> bytes:
    """Return the body of an event that no other call has made."""
    return body_of(event, fields, ts=NOW)


def headers_of(raw: bytes, *, secret: str = SECRET, timestamp: int = NOW) -> dict[str, str]:
    """Return the headers that Roovet sends with a body."""
    return Signer(secret).headers(raw, timestamp=timestamp)


def request_of(
    raw: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    path: str = PATH,
) -> WebhookRequest:
    """Return a request that carries a body, signed unless headers are given."""
    raw = payload() if raw is None else raw
    pairs = (headers_of(raw) if headers is None else headers).items()
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    return WebhookRequest(method, path, encoded, raw)
