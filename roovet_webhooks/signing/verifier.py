"""Sign and verify.

``HMAC-SHA256(secret, t + "." + raw body)``, where ``t`` is the literal text of the header and the secret is
its UTF-8 bytes (vendor document, "Webhooks & Signing").
"""

from __future__ import annotations

from binascii import unhexlify
from functools import lru_cache
from hmac import compare_digest
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, overload

from roovet_webhooks.errors import ConfigurationError, SignatureMismatch
from roovet_webhooks.signing.header import (
    DOCUMENTED,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Headers,
    SignatureHeader,
    check_timestamp,
    parse_signature,
    signature_of,
)
from roovet_webhooks.signing.keys import Keyring, Secret, SecretLike, as_keyring
from roovet_webhooks.signing.mac import keyed
from roovet_webhooks.signing.secrecy import Unpicklable, forget_variables, forgets_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from roovet_webhooks.events import Event

DEFAULT_TOLERANCE = 300.0

T = TypeVar("T")


class Verified(NamedTuple):
    """The proof that Roovet sent these bytes.

    Attributes:
        timestamp: When the delivery was signed, Unix seconds.
        secret_name: Name of the secret that matched: tells when an old one may go.
    """

    timestamp: int
    secret_name: str


# Verified(…), at a third of its cost.
_verified = cast("Callable[[type[Verified], tuple[int, str]], Verified]", cast("Any", tuple).__new__)


class Verification:
    """One delivery being verified while its body streams in: `update` with each chunk, then `finish`.

    `Verifier.begin` makes one.
    """

    __slots__ = ("_digests", "_macs", "_timestamp")

    def __init__(self, signature: SignatureHeader, secrets: Sequence[Secret]) -> None:
        """Begin the MAC of ``t`` and the dot under each of the secrets."""
        literal, self._timestamp, self._digests = signature
        self._macs = [(secret, (secret.keyed or keyed(secret)).copy()) for secret in secrets]
        for _, mac in self._macs:
            mac.update(literal + b".")

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the raw body."""
        for _, mac in self._macs:
            mac.update(chunk)

    def finish(self) -> Verified:
        """Compare, in constant time, under every secret and for every digest given.

        Raises:
            SignatureMismatch: None of them agree.
        """
        matched = self._matched()
        if matched is None:
            raise _mismatch([secret for secret, _ in self._macs])
        return Verified(self._timestamp, matched)

    def _matched(self) -> str | None:
        # A frame of its own, which is over before anything is raised: it holds the digest that would be right.
        matched: str | None = None
        for secret, mac in self._macs:
            expected = mac.finalize()
            for digest in self._digests:
                # A truncated digest has passed the grammar only where truncation is accepted.
                if compare_digest(expected[: len(digest)], digest) and matched is None:
                    matched = secret.name
        return matched


def _mismatch(secrets: Sequence[Secret]) -> SignatureMismatch:
    tried = [secret.name for secret in secrets]
    message = f"no digest agrees with the body under any active secret: {', '.join(tried) or 'there is none'}"
    return SignatureMismatch(message, secrets_tried=tried)


class Verifier(Unpicklable):
    """`verify`, prepared once for many deliveries. Safe to share between threads.

    Args:
        secret: A text, a `Secret`, a sequence of these, or a `Keyring`.
        tolerance: Seconds of clock difference and delay accepted, in both directions.
        accept_truncated: Whether a digest of the leftmost 128 bits is taken as well (RFC 2104, section 5).

    Raises:
        InvalidSecretError: A secret cannot be one.
        ConfigurationError: There is no secret, or the tolerance is not a number of seconds.
    """

    __slots__ = ("_only", "accept_truncated", "keyring", "tolerance")

    @forgets_secret
    def __init__(
        self, secret: SecretLike, *, tolerance: float = DEFAULT_TOLERANCE, accept_truncated: bool = False
    ) -> None:
        keyring = as_keyring(secret)
        del secret
        self.keyring: Keyring = keyring
        only = keyring.only()
        self._only = None if only is None else keyed(only)
        self.tolerance: float = checked_tolerance(tolerance)
        self.accept_truncated: bool = accept_truncated

    def begin(self, signature: SignatureHeader, *, now: float) -> Verification:
        """Begin to verify a body that streams in, under the secrets active at ``now`` (Unix seconds)."""
        return Verification(signature, self.keyring.active(now))

    def verify(
        self,
        raw: bytes,
        signature: str | bytes | None,
        *,
        now: float | None = None,
        timestamp_header: str | bytes | None = None,
    ) -> Verified:
        """Verify one delivery; see `roovet_webhooks.verify` for arguments and errors."""
        try:
            return self.check(raw, signature, now, timestamp_header)
        except Exception as error:
            forget_variables(error)
            del raw, signature, timestamp_header
            raise

    def check(
        self,
        raw: bytes,
        signature: str | bytes | None,
        now: float | None,
        timestamp_header: str | bytes | None,
    ) -> Verified:
        """Do what `verify` says, and leave what it raises as it is.

        The shape of header that Roovet documents, under a single secret, is what nearly every call has; it
        is read in one step and makes no `Verification`, which at 300 bytes saves a third of the time.
        Everything else goes the long way, and a property test holds both ways equal.
        """
        if type(raw) is not bytes:
            raise not_raw(raw)
        now = time() if now is None else checked_moment(now)
        tolerance = self.tolerance
        only = self._only
        documented = None
        if only is not None and signature and timestamp_header is None:
            # What Latin-1 cannot write becomes a "?", which is no digit: it goes the long way and is refused.
            if isinstance(signature, str):
                documented = DOCUMENTED(signature.encode("latin-1", "replace"))
            elif isinstance(signature, bytes):
                documented = DOCUMENTED(signature)
        if only is not None and documented is not None:
            literal, digits = documented.groups()
            timestamp = int(literal)
            # islower and unhexlify cost a third of a character class in the expression. Digits without a
            # single letter, one digest in 10^13, fail islower and go the long way.
            try:
                digest = unhexlify(digits) if digits.islower() else None
            except ValueError:
                digest = None
            if digest is not None and -tolerance <= timestamp - now <= tolerance:
                mac = only.copy()
                mac.update(literal + b".")
                mac.update(raw)
                if compare_digest(mac.finalize(), digest):
                    return _verified(Verified, (timestamp, self.keyring.secrets[0].name))
                raise _mismatch(self.keyring.secrets)
        parsed = parse_signature(signature, accept_truncated=self.accept_truncated)
        check_timestamp(parsed, now, tolerance, timestamp_header)
        verification = self.begin(parsed, now=now)
        verification.update(raw)
        return verification.finish()

    def __repr__(self) -> str:
        """Show the names of the secrets, and nothing else of them."""
        # A crash report may print a verifier that could not be made.
        return f"Verifier({getattr(self, 'keyring', None)!r}, tolerance={getattr(self, 'tolerance', None)})"


class Signer(Unpicklable):
    """`sign`, prepared once: what a test, a sandbox or Roovet itself does.

    Args:
        secret: As `Verifier` takes it; the first secret active at the time of signing signs.
    """

    __slots__ = ("keyring",)

    @forgets_secret
    def __init__(self, secret: SecretLike) -> None:
        self.keyring: Keyring = as_keyring(secret)

    @forgets_secret
    def sign(self, raw: bytes, *, timestamp: int | None = None) -> str:
        """Return the value of ``X-Roovet-Signature`` for a body.

        Args:
            raw: The body, byte for byte as it will be sent.
            timestamp: Unix seconds to sign; the current time when ``None``.

        Raises:
            TypeError: The body is not bytes.
            ValueError: The timestamp does not fit the header's grammar.
            ConfigurationError: No secret of the keyring is active at that time.
        """
        if type(raw) is not bytes:
            raise not_raw(raw)
        moment = int(time()) if timestamp is None else timestamp
        if not isinstance(moment, int) or not 0 <= moment < 10**12:
            message = f"the timestamp to sign must be Unix seconds as an int of up to 12 digits, not {moment!r}"
            raise ValueError(message)
        active = self.keyring.active(moment)
        if not active:
            message = f"no secret of {self.keyring!r} is active at {moment}"
            raise ConfigurationError(message)
        mac = keyed(active[0]).copy()
        mac.update(b"%d." % moment)
        mac.update(raw)
        return f"t={moment},v1={mac.finalize().hex()}"

    @forgets_secret
    def headers(self, raw: bytes, *, timestamp: int | None = None) -> dict[str, str]:
        """Return all the headers of a delivery as Roovet sends it; arguments and errors as `sign`."""
        signature = self.sign(raw, timestamp=timestamp)
        literal = signature[len("t=") : signature.index(",")]
        return {
            "Content-Type": "application/json",
            SIGNATURE_HEADER: signature,
            TIMESTAMP_HEADER: literal,
        }

    def __repr__(self) -> str:
        """Show the names of the secrets, and nothing else of them."""
        return f"Signer({getattr(self, 'keyring', None)!r})"


def checked_tolerance(tolerance: float) -> float:
    """Return the tolerance when it is a number of seconds.

    Raises:
        ConfigurationError: It is negative, infinite, NaN or no number.
    """
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < float("inf"):
        message = (
            f"tolerance must be a number of seconds, 0 or more, not {tolerance!r}; "
            "without a bound a captured delivery could be replayed for ever"
        )
        raise ConfigurationError(message)
    return tolerance


def checked_moment(now: float) -> float:
    """Return a time when it is a number of seconds.

    Raises:
        TypeError: It is no number, or a number beyond every clock.
    """
    try:
        if isinstance(now, int | float) and not isinstance(now, bool):
            return float(now)
    except OverflowError:
        pass
    hint = ": pass now.timestamp()" if hasattr(now, "timestamp") else ""
    message = f"now must be a number of Unix seconds, not this {type(now).__name__}{hint}"
    raise TypeError(message)


def not_raw(raw: object) -> TypeError:
    """Return the error for a body that is not bytes."""
    kind = type(raw).__name__
    hint = "only the bytes that arrived can be verified"
    if isinstance(raw, str):
        hint = "decoding may have changed it"
    elif isinstance(raw, dict | list):
        hint = "it is already parsed, and parsing loses the bytes that were signed"
    return TypeError(f"raw must be the body's bytes, not {kind}: {hint}; pass the raw request body")


@lru_cache(maxsize=64)
@forgets_secret
def _prepared(
    secret: SecretLike,
    tolerance: float,
    accept_truncated: bool,  # noqa: FBT001 - a cache key
) -> Verifier:
    return Verifier(secret, tolerance=tolerance, accept_truncated=accept_truncated)


def verify(  # noqa: PLR0913 - the public face; all but three are keyword options
    raw: bytes,
    signature: str | bytes | None,
    secret: SecretLike,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    accept_truncated: bool = False,
    now: float | None = None,
    timestamp_header: str | bytes | None = None,
) -> Verified:
    """Verify that Roovet signed this body, recently. Trust nothing of the request before this returns.

    Args:
        raw: The body, byte for byte as it arrived.
        signature: The value of ``X-Roovet-Signature``; ``None`` when there is no such header.
        secret: The signing secret, several of them, or a `Keyring`.
        tolerance: Seconds of clock difference and delay accepted, in both directions.
        accept_truncated: Whether a digest of the leftmost 128 bits is taken as well.
        now: The time to verify at, Unix seconds; the system clock when ``None``.
        timestamp_header: The value of ``X-Roovet-Timestamp``, if the request has one. It is unsigned, so it
            proves nothing, but a difference from the signed ``t`` is refused.

    Returns:
        The proof: when it was signed, and which secret matched.

    Raises:
        VerificationError: It is not proven; the subclass says why.
        InvalidSecretError: The secret cannot be one.
        ConfigurationError: There is no secret, or the tolerance is not a number of seconds.
        TypeError: ``raw`` is not bytes, a header is neither text nor bytes, or ``now`` is no number.

    Example:
        >>> raw = b'{"event":"order.created","id":"ord_123","ts":1762782800}'
        >>> header = sign(raw, "whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728", timestamp=1762782800)
        >>> verify(raw, header, "whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728", now=1762782810)
        Verified(timestamp=1762782800, secret_name='default')
    """
    try:
        try:
            verifier = _prepared(secret, tolerance, accept_truncated)
        except (
            TypeError,
            ConfigurationError,
            Warning,
        ):  # a list cannot be a cache key; whatever else is wrong raises again
            verifier = Verifier(secret, tolerance=tolerance, accept_truncated=accept_truncated)
        return verifier.check(raw, signature, now, timestamp_header)
    except Exception as error:
        forget_variables(error)
        del raw, signature, secret, timestamp_header
        raise


@forgets_secret
def sign(raw: bytes, secret: SecretLike, *, timestamp: int | None = None) -> str:
    """Return the ``X-Roovet-Signature`` for a body; see `Signer.sign` for arguments and errors.

    Example:
        >>> sign(b"{}", "whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728", timestamp=1762782800)[:20]
        't=1762782800,v1=d74c'
    """
    return Signer(secret).sign(raw, timestamp=timestamp)


@overload
def construct_event(
    raw: bytes,
    headers: Headers,
    secret: SecretLike,
    *,
    tolerance: float = ...,
    accept_truncated: bool = ...,
    now: float | None = ...,
) -> Event: ...


@overload
def construct_event(
    raw: bytes,
    headers: Headers,
    secret: SecretLike,
    *,
    type: type[T],
    tolerance: float = ...,
    accept_truncated: bool = ...,
    now: float | None = ...,
) -> T: ...


@forgets_secret
def construct_event(  # noqa: PLR0913 - the public face; all but three are keyword options
    raw: bytes,
    headers: Headers,
    secret: SecretLike,
    *,
    type: type[object] | None = None,  # noqa: A002 - the word that Router.on uses
    tolerance: float = DEFAULT_TOLERANCE,
    accept_truncated: bool = False,
    now: float | None = None,
) -> object:
    """Verify a delivery and return its event.

    Args:
        raw: The body, byte for byte as it arrived.
        headers: The request's headers as a mapping or as pairs, or the signature header's text itself.
        secret: The signing secret, several of them, or a `Keyring`.
        type: What to build: an `Event` class, a dataclass, a TypedDict, a pydantic model; `Event` when
            ``None``.
        tolerance: Seconds of clock difference and delay accepted, in both directions.
        accept_truncated: Whether a digest of the leftmost 128 bits is taken as well.
        now: The time to verify at, Unix seconds; the system clock when ``None``.

    Raises:
        VerificationError: It is not proven that Roovet sent it.
        PayloadError: It is genuine, but not an event.
        EventValidationError: It is an event that ``type`` cannot hold.
        InvalidSecretError: The secret cannot be one.
        ConfigurationError: There is no secret, the tolerance is not a number of seconds, or nothing can build ``type``.
        TypeError: ``raw`` is not bytes, ``headers`` are of none of these shapes, or ``now`` is no number.
    """
    from roovet_webhooks.events import decoder_of, parse_envelope  # noqa: PLC0415 - verify alone needs no events

    signature, timestamp_header = signature_of(headers)
    verify(
        raw,
        signature,
        secret,
        tolerance=tolerance,
        accept_truncated=accept_truncated,
        now=now,
        timestamp_header=timestamp_header,
    )
    del secret
    event = parse_envelope(raw)
    return event if type is None else decoder_of(type)(raw, event)
