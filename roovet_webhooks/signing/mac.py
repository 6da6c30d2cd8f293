"""The only module that computes a MAC.

Roovet signs with HMAC-SHA256 (vendor document, "Webhooks & Signing"; RFC 2104; RFC 4231 for the vectors). A secret is
keyed once and the keyed object copied for each delivery, so that no frame on the way holds the secret and the key
schedule is paid once. The other algorithms verify nothing: with them `explain` recomputes what a sender did wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA224, SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roovet_webhooks.signing.keys import Secret

# The algorithms whose digests have another length than SHA-256's, by that length in bytes.
OTHERS: Mapping[int, tuple[str, type[HashAlgorithm]]] = {
    16: ("MD5", MD5),
    20: ("SHA-1", SHA1),
    28: ("SHA-224", SHA224),
    48: ("SHA-384", SHA384),
    64: ("SHA-512", SHA512),
}


def keyed(secret: Secret) -> HMAC:
    """Return the secret's MAC object, keyed once; callers copy it and never feed it."""
    mac = secret.keyed
    if mac is None:
        mac = secret.keyed = HMAC(secret.reveal(), SHA256())
    return mac


def fresh(key: bytes) -> HMAC:
    """Return the MAC object of a key that is no `Secret`: one of `explain`'s guesses."""
    return HMAC(key, SHA256())


def other(key: bytes, length: int) -> HMAC | None:
    """Return a MAC object of the algorithm whose digests have a length in bytes; ``None`` when there is none here."""
    named = OTHERS.get(length)
    if named is None:
        return None
    try:
        return HMAC(key, named[1]())
    except UnsupportedAlgorithm:  # OpenSSL in FIPS mode knows no MD5
        return None
