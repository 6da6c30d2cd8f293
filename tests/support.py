"""What tests share: a secret, a clock, and deliveries signed like Roovet's."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from roovet_webhooks import Signer, WebhookRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET = "whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728"
OTHER_SECRET = "whsec_00000000000000000000000000000000"
NOW = 1_762_782_800
PATH = "/webhooks/roovet"
REFUSED = {
    "error": {
        "type": "verification_failed",
        "code": "400",
        "message": "The delivery could not be verified.",
        "param": None,
    }
}

_numbers = itertools.count(1)


def clock() -> float:
    """Stand still at NOW."""
    return float(NOW)


def payload(event: str = "order.created", **fields: object) -> bytes:
    """Return the body of an event that no other call has made."""
    content: dict[str, object] = {"event": event, "id": f"ord_{next(_numbers)}", "ts": NOW, **fields}
    return json.dumps(content, separators=(",", ":")).encode()


def headers_of(raw: bytes, *, secret: str = SECRET, timestamp: int = NOW) -> dict[str, str]:
    """Return the headers that Roovet sends with a body."""
    return Signer(secret).headers(raw, timestamp=timestamp)


def request_of(
    raw: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    path: str = "/webhooks/roovet",
) -> WebhookRequest:
    """Return a request that carries a body, signed unless headers are given."""
    raw = payload() if raw is None else raw
    pairs = (headers_of(raw) if headers is None else headers).items()
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    return WebhookRequest(method, path, encoded, raw)
