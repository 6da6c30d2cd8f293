"""Everything that is compared with `verify`: each a call without arguments, for a body of a given size."""

from __future__ import annotations

import hashlib
import warnings
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import standardwebhooks
import svix.webhooks
from deliveries import SECRET, roovet_body, roovet_headers, stripe_headers

from roovet_webhooks import Verifier, verify

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, and not what is measured
    import stripe

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[], object]

SIZES = {"64 B": 64, "300 B": 300, "4 KiB": 4096, "64 KiB": 65_536, "1 MiB": 1_048_576}


def contenders(size: int) -> dict[str, Call]:
    """Return the calls by name. Every one of them accepts its delivery, or raises.

    The verifiers of `standardwebhooks` and `svix` are made once, as their documentation has it, and parse no JSON.
    """
    body = roovet_body(size)
    header = roovet_headers(body)["X-Roovet-Signature"]
    prepared = Verifier(SECRET)
    stripe_header = stripe_headers(body)["Stripe-Signature"]
    shared = f"whsec_{b64encode(SECRET.encode()).decode()}"
    moment = datetime.now(UTC)
    standard, svix_one = standardwebhooks.Webhook(shared), svix.webhooks.Webhook(shared)
    standard_headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": standard.sign("msg_1", moment, body.decode()),
    }
    svix_headers = {
        "svix-id": "msg_1",
        "svix-timestamp": str(int(moment.timestamp())),
        "svix-signature": svix_one.sign("msg_1", moment, body.decode()),
    }
    return {
        "Verifier.verify": lambda: prepared.verify(body, header),
        "verify": lambda: verify(body, header, SECRET),
        "stripe": lambda: stripe.WebhookSignature.verify_header(body, stripe_header, SECRET, 300),
        "standardwebhooks": lambda: standard.verify(body, standard_headers, json_parse=False),
        "svix": lambda: svix_one.verify(body, svix_headers),
        "sha256": lambda: hashlib.sha256(body).digest(),
    }
