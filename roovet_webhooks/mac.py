"""The only module that computes a MAC.

Roovet signs with HMAC-SHA256 (vendor document, "Webhooks & Signing"; RFC 2104; RFC 4231 for the vectors). A secret is
keyed once and the keyed object copied for each delivery, so that no frame on the way holds the secret and the key
schedule is paid once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

if TYPE_CHECKING:
    from roovet_webhooks.keys import Secret


def keyed(secret: Secret) -> HMAC:
    """Return the secret's MAC object, keyed once; callers copy it and never feed it."""
    mac = secret.keyed
    if mac is None:
        mac = secret.keyed = HMAC(secret.reveal(), SHA256())
    return mac
