"""The classic forgeries, as data: what each of them does to a genuine delivery, and as what it must be refused.

A receiver refuses all of them. An endpoint is more than its receiver: a middleware that parses and writes the body
again, a secret that is empty in production, or a second route without a guard are found by sending them through it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roovet_webhooks.errors import (
    FutureTimestamp,
    MalformedSignature,
    MissingSignature,
    SignatureMismatch,
    StaleTimestamp,
    TimestampHeaderMismatch,
)
from roovet_webhooks.signing.keys import as_keyring
from roovet_webhooks.signing.secrecy import forgets_secret
from roovet_webhooks.testing.bodies import body_of
from roovet_webhooks.testing.fixed import NOW, PATH, SECRET
from roovet_webhooks.testing.signed import SignedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from roovet_webhooks.signing.keys import SecretLike
    from roovet_webhooks.testing.bodies import EventLike

DAY = 86_400
_OTHER_SECRET = b"whsec_for_forgers_00000000000000"
_API_KEY = b"rvpk_live_5f2b8c1e9a7d4036b1c2_1234"
_OTHER_BODY = b'{"event":"order.created","id":"another","ts":1762782800}'

_MISSING = frozenset({MissingSignature.code})
_MALFORMED = frozenset({MalformedSignature.code})
_MISMATCH = frozenset({SignatureMismatch.code})
# A receiver that accepts truncated digests reads 32 digits, and then they have to agree.
_MALFORMED_OR_MISMATCH = _MALFORMED | _MISMATCH
# Under WSGI one line comes with both values, under ASGI two lines.
_TWICE = frozenset({MalformedSignature.code, TimestampHeaderMismatch.code, "duplicate_header"})


class Genuine:
    """What a forger starts from: a delivery that Roovet could have sent, and whatever MAC it takes.

    Attributes:
        body: The genuine body.
        t: The genuine timestamp, Unix seconds.
    """

    def __init__(self, body: bytes, t: int, path: str, key: bytes) -> None:
        self.body = body
        self.t = t
        self._path = path
        self._key = key

    def mac(
        self, body: bytes | None = None, *, t: int | None = None, key: bytes | None = None, algorithm: str = "sha256"
    ) -> str:
        """Return a MAC in hex: the genuine one, but for what is given."""
        signed = b"%d." % (self.t if t is None else t) + (self.body if body is None else body)
        return self.mac_of(signed, key=key, algorithm=algorithm)

    def mac_of(self, message: bytes, *, key: bytes | None = None, algorithm: str = "sha256") -> str:
        """Return the MAC of any message in hex."""
        return hmac.new(self._key if key is None else key, message, algorithm).hexdigest()

    def v1(self, digest: str | None = None, *, t: int | None = None) -> str:
        """Return a signature header: the genuine one, but for what is given."""
        return f"t={self.t if t is None else t},v1={self.mac() if digest is None else digest}"

    def sent(
        self, *signatures: str | bytes, body: bytes | None = None, timestamps: tuple[str, ...] = ()
    ) -> SignedRequest:
        """Return the request with these signature headers.

        Args:
            *signatures: One for each header.
            body: The body, where it is not the genuine one.
            timestamps: The unsigned timestamp headers, where they are not one that agrees.
        """
        lines = (
            (b"Content-Type", b"application/json"),
            *((b"X-Roovet-Signature", text if isinstance(text, bytes) else text.encode()) for text in signatures),
            *((b"X-Roovet-Timestamp", text.encode()) for text in (timestamps or (str(self.t),))),
        )
        return SignedRequest(self.body if body is None else body, lines, self._path)

    def __repr__(self) -> str:
        """Show where it goes; key and body stay out of logs."""
        return f"Genuine(POST {self._path})"


@dataclass(frozen=True)
class Forgery:
    """One way to forge a delivery.

    Attributes:
        name: What it does, as the id of a test.
        summary: The same in a sentence.
        codes: The codes, of which a receiver gives one when it refuses this.
        forge: Makes it of a genuine delivery.
        age: Seconds by which the genuine delivery is old; negative for one from the future.
    """

    name: str
    summary: str
    codes: frozenset[str]
    forge: Callable[[Genuine], SignedRequest]
    age: int = 0

    @forgets_secret
    def request(
        self,
        event: EventLike = "order.created",
        /,
        *,
        secret: SecretLike = SECRET,
        timestamp: int | None = None,
        path: str = PATH,
        **fields: object,
    ) -> SignedRequest:
        """Return the forgery of a delivery; arguments and errors as `roovet_webhooks.testing.signed_request`.

        Raises:
            TypeError: The event is raw bytes, of which nothing is known that could be forged.

        Example:
            >>> FORGERIES[0].request("order.created", id="ord_1").headers
            {'Content-Type': 'application/json', 'X-Roovet-Timestamp': '1762782800'}
        """
        if isinstance(event, bytes):
            message = "a forgery is made of an event; raw bytes may be anything"
            raise TypeError(message)
        t = (NOW if timestamp is None else timestamp) - self.age
        keyring = as_keyring(secret)
        signing = next(iter(keyring.active(t)), keyring.secrets[0])
        return self.forge(Genuine(body_of(event, fields, ts=t), t, path, signing.reveal()))

    def __repr__(self) -> str:
        """Show the name."""
        return f"Forgery({self.name!r})"


def _altered(body: bytes) -> bytes:
    """Change the last digit: another amount or time, and valid JSON all the same."""
    place = max((place for place, byte in enumerate(body) if byte in b"0123456789"), default=0)
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


FORGERIES: tuple[Forgery, ...] = (
    Forgery("no-signature", "There is no signature header.", _MISSING, lambda d: d.sent()),
    Forgery("empty-signature", "The signature header is empty.", _MISSING, lambda d: d.sent("")),
    Forgery("garbage-signature", "The signature header is no signature.", _MALFORMED, lambda d: d.sent("trust me")),
    Forgery("no-timestamp", "The header has a digest and no t.", _MALFORMED, lambda d: d.sent(f"v1={d.mac()}")),
    Forgery("no-digest", "The header has a t and no digest.", _MALFORMED, lambda d: d.sent(f"t={d.t}")),
    Forgery("empty-digest", "The digest is empty.", _MALFORMED, lambda d: d.sent(d.v1(""))),
    Forgery("zero-digest", "The digest is 64 zeros.", _MISMATCH, lambda d: d.sent(d.v1("0" * 64))),
    # Another key
    Forgery(
        "wrong-secret",
        "It is signed under another secret.",
        _MISMATCH,
        lambda d: d.sent(d.v1(d.mac(key=_OTHER_SECRET))),
    ),
    Forgery(
        "empty-secret",
        "It is signed under an empty secret, as a server has it that was started without one.",
        _MISMATCH,
        lambda d: d.sent(d.v1(d.mac(key=b""))),
    ),
    Forgery(
        "api-key-as-secret",
        "It is signed under an API key.",
        _MISMATCH,
        lambda d: d.sent(d.v1(d.mac(key=_API_KEY))),
    ),
    Forgery(
        "hash-without-key",
        "The digest is a plain SHA-256, which needs no secret.",
        _MISMATCH,
        lambda d: d.sent(d.v1(hashlib.sha256(b"%d." % d.t + d.body).hexdigest())),
    ),
    # Another body
    Forgery(
        "body-altered",
        "One byte of the body was changed after it was signed.",
        _MISMATCH,
        lambda d: d.sent(d.v1(), body=_altered(d.body)),
    ),
    Forgery(
        "body-of-another-delivery",
        "The signature is genuine, and that of another delivery.",
        _MISMATCH,
        lambda d: d.sent(d.v1(d.mac(_OTHER_BODY))),
    ),
    Forgery(
        "body-reserialised",
        "The body was parsed and written again, with spaces.",
        _MISMATCH,
        lambda d: d.sent(d.v1(), body=json.dumps(json.loads(d.body)).encode()),
    ),
    Forgery(
        "body-appended",
        "Something was appended to the body.",
        _MISMATCH,
        lambda d: d.sent(d.v1(), body=d.body + b"\n" + d.body),
    ),
    Forgery(
        "body-with-line-break",
        "A line break was appended to the body.",
        _MISMATCH,
        lambda d: d.sent(d.v1(), body=d.body + b"\n"),
    ),
    Forgery("body-empty", "The body was taken away.", _MISMATCH, lambda d: d.sent(d.v1(), body=b"")),
    # Another time
    Forgery("stale", "It was signed a day ago.", frozenset({StaleTimestamp.code}), lambda d: d.sent(d.v1()), DAY),
    Forgery(
        "future",
        "It is signed for a day from now.",
        frozenset({FutureTimestamp.code}),
        lambda d: d.sent(d.v1()),
        -DAY,
    ),
    Forgery(
        "timestamp-altered",
        "It was signed a day ago, and its t was changed to now.",
        _MISMATCH,
        lambda d: d.sent(d.v1(t=d.t + DAY), timestamps=(str(d.t + DAY),)),
        DAY,
    ),
    Forgery(
        "timestamp-not-signed",
        "The MAC covers the body and not the timestamp.",
        _MISMATCH,
        lambda d: d.sent(d.v1(d.mac_of(d.body))),
    ),
    Forgery(
        "timestamp-twice",
        "The header has two t, the first of them genuine.",
        _MALFORMED,
        lambda d: d.sent(f"t={d.t},t={d.t + DAY},v1={d.mac()}"),
    ),
    Forgery(
        "timestamp-header-differs",
        "The unsigned timestamp header says something else than the signed t.",
        frozenset({TimestampHeaderMismatch.code}),
        lambda d: d.sent(d.v1(), timestamps=(str(d.t + 1),)),
    ),
    Forgery(
        "timestamp-header-twice",
        "There are two unsigned timestamp headers.",
        _TWICE,
        lambda d: d.sent(d.v1(), timestamps=(str(d.t), str(d.t))),
    ),
    # Another form of digest
    Forgery(
        "digest-truncated",
        "The digest is the first half of the genuine one: 32 digits.",
        _MALFORMED,
        lambda d: d.sent(d.v1(d.mac()[:32])),
    ),
    Forgery(
        "digest-prefix",
        "The digest is the beginning of the genuine one, short enough to be guessed.",
        _MALFORMED,
        lambda d: d.sent(d.v1(d.mac()[:8])),
    ),
    Forgery(
        "digest-in-upper-case",
        "The digest is in upper case.",
        _MALFORMED,
        lambda d: d.sent(d.v1(d.mac().upper())),
    ),
    Forgery(
        "digest-in-base64",
        "The digest is in Base64.",
        _MALFORMED,
        lambda d: d.sent(d.v1(base64.b64encode(bytes.fromhex(d.mac())).decode())),
    ),
    Forgery(
        "md5", "It is signed with HMAC-MD5.", _MALFORMED_OR_MISMATCH, lambda d: d.sent(d.v1(d.mac(algorithm="md5")))
    ),
    Forgery("sha1", "It is signed with HMAC-SHA1.", _MALFORMED, lambda d: d.sent(d.v1(d.mac(algorithm="sha1")))),
    Forgery("sha512", "It is signed with HMAC-SHA512.", _MALFORMED, lambda d: d.sent(d.v1(d.mac(algorithm="sha512")))),
    Forgery(
        "another-scheme",
        "The genuine digest stands under v0, as if a scheme could be chosen.",
        _MALFORMED,
        lambda d: d.sent(f"t={d.t},v0={d.mac()}"),
    ),
    Forgery(
        "many-digests",
        "The header tries nine digests at once.",
        _MALFORMED,
        lambda d: d.sent(",".join([d.v1("0" * 64), *[f"v1={digit * 64}" for digit in "1234567"], f"v1={d.mac()}"])),
    ),
    # Another header
    Forgery(
        "signature-header-twice",
        "There are two signature headers, the first of them forged.",
        _TWICE,
        lambda d: d.sent(d.v1("0" * 64), d.v1()),
    ),
    Forgery(
        "signature-header-repeated",
        "The genuine signature header stands there twice.",
        _TWICE,
        lambda d: d.sent(d.v1(), d.v1()),
    ),
    Forgery(
        "white-space",
        "There is white space within the signature header.",
        _MALFORMED,
        lambda d: d.sent(f"t={d.t}, v1={d.mac()}"),
    ),
    Forgery(
        "not-ascii",
        "There are bytes in the signature header that are not ASCII.",
        _MALFORMED,
        lambda d: d.sent(d.v1().encode() + b",v0=\xff\xfe"),
    ),
    Forgery(
        "oversized-header",
        "The genuine signature header was made longer than 2 KiB.",
        _MALFORMED,
        lambda d: d.sent(d.v1() + ",v0=" + "a" * 4096),
    ),
)
