"""Bodies of a given size and their headers, as Roovet and as Stripe would send them. No two bodies are alike."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from typing import TYPE_CHECKING

from roovet_webhooks import Signer

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET = "whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728"
PATH = "/webhooks/roovet"

_numbers = itertools.count(1)
_signer = Signer(SECRET)


def roovet_body(size: int, run: str = "") -> bytes:
    """Return an event of exactly ``size`` bytes; ``run`` keeps the bodies of two processes apart."""
    number = f"{run}{next(_numbers)}"
    content: dict[str, object] = {"event": "transfer.settled", "id": number, "ts": int(time.time())}
    if size >= 200:
        content |= {"id": f"trf_{number}", "amount_cents": 1299, "currency": "USD", "to": "user_42"}
    return _padded(content, size)


def stripe_body(size: int, run: str = "") -> bytes:
    """Return an event of Stripe's shape, of exactly ``size`` bytes."""
    content: dict[str, object] = {
        "id": f"evt_{run}{next(_numbers)}",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": int(time.time()),
        "data": {"object": {"id": "pi_42", "object": "payment_intent", "amount": 1299, "currency": "usd"}},
    }
    return _padded(content, size)


def _padded(content: dict[str, object], size: int) -> bytes:
    body = json.dumps(content, separators=(",", ":"))
    note = ',"note":"'
    missing = size - len(body) - len(note) - 1
    if missing >= 0:
        body = body[:-1] + note + "x" * missing + '"}'
    return body.ljust(size).encode()  # white space after a JSON text is part of it


def roovet_headers(body: bytes) -> Mapping[str, str]:
    return _signer.headers(body)


def stripe_headers(body: bytes) -> Mapping[str, str]:
    moment = int(time.time())
    digest = hmac.digest(SECRET.encode(), b"%d." % moment + body, hashlib.sha256).hex()
    return {"Content-Type": "application/json", "Stripe-Signature": f"t={moment},v1={digest}"}


def http_request(body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
