"""Say why a delivery is refused: recompute its MAC under the mistakes that are known to be made.

`verify` says yes or no. `explain` looks at the same request again and names the cause. It is for a developer's
terminal and log, and never part of an HTTP answer.
"""

from __future__ import annotations

from contextlib import suppress
from time import time
from typing import TYPE_CHECKING

from roovet_webhooks.errors import SignatureMismatch, UnsupportedMediaType, VerificationError
from roovet_webhooks.explain.bodies import compression_of
from roovet_webhooks.explain.codes import CODES, Code, finding
from roovet_webhooks.explain.header import Reading
from roovet_webhooks.explain.search import Search
from roovet_webhooks.explain.secrets import hold
from roovet_webhooks.findings import Diagnosis, Finding
from roovet_webhooks.signing.verifier import DEFAULT_TOLERANCE, Verified, Verifier, checked_tolerance, not_raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.explain.search import Match
    from roovet_webhooks.explain.secrets import Held
    from roovet_webhooks.signing.header import Headers
    from roovet_webhooks.signing.keys import SecretLike

__all__ = ["CODES", "Code", "Diagnosis", "Finding", "explain", "explain_refusal"]


def explain(  # noqa: PLR0913 - as verify
    raw: bytes,
    headers: Headers,
    secret: SecretLike,
    *,
    now: float | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    accept_truncated: bool = False,
) -> Diagnosis:
    r"""Say why a delivery is refused, or that it is not.

    Where nothing is found it takes a few milliseconds for a body of a few kilobytes, and some tens for one of 1 MiB, or
    for a small one with five or six keys, of which every order is tried.

    Args:
        raw: The body, byte for byte as it arrived.
        headers: The request's headers as a mapping or as pairs, or the signature header's text itself.
        secret: The signing secret, several of them, or a `Keyring`; also what `Secret` would refuse, such as one
            in quotation marks.
        now: The time to verify at, Unix seconds; the system clock when ``None``.
        tolerance: Seconds of clock difference and delay accepted, in both directions.
        accept_truncated: Whether a digest of the leftmost 128 bits is taken as well.

    Returns:
        The verdict of `verify`, and what was found, the most likely cause first.

    Raises:
        TypeError: ``raw`` is not bytes.
        ConfigurationError: There is no secret, or an argument cannot be what it is given for.

    Example:
        >>> from roovet_webhooks import sign
        >>> secret = "whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728"
        >>> header = sign(b'{"event":"order.created"}', secret)
        >>> explain(b'{"event":"order.created"}\n', header, secret).findings[0].code
        'body_trailing_newline'
    """
    given = [secret]
    # From here on no frame of ours holds the secret, whatever is raised.
    del secret
    moment = time() if now is None else now
    held = hold(given, moment)
    if type(raw) is not bytes:
        raise not_raw(raw)
    tolerance = checked_tolerance(tolerance)
    reading = Reading(headers, now=moment, tolerance=tolerance, accept_truncated=accept_truncated)
    if held.keyring is not None and reading.strict is not None:
        signature, timestamp = reading.strict
        verifier = Verifier(held.keyring, tolerance=tolerance, accept_truncated=accept_truncated)
        with suppress(VerificationError):
            return _verified(verifier.check(raw, signature, moment, timestamp), moment)
    search = Search(raw, reading, held.keys)
    match = search.run()
    findings = [*held.faults, *_refused(raw, reading, match)]
    if match is None and reading.digests and not _is_blank(raw):
        findings.append(_residual(search, held))
    return Diagnosis("refused", tuple(findings), None if match is None else match.key.name)


def _verified(proof: Verified, now: float) -> Diagnosis:
    age = now - proof.timestamp
    when = f"{age:.0f} s ago" if age >= 0 else f"{-age:.0f} s in the future"
    message = f"signed {when} with the signing secret {proof.secret_name!r}"
    good = finding("ok", message, secret=proof.secret_name, skew=proof.timestamp - now)
    return Diagnosis("verified", (good,), proof.secret_name)


def _refused(raw: bytes, reading: Reading, match: Match | None) -> Iterator[Finding]:
    """Put in order what was found: first what has to be mended, whenever the delivery had come; then its time.

    Who looks at a recorded delivery an hour later finds it stale, and that is not what they are looking for.
    """
    if match is None:
        yield from reading.faults
        if reading.digests:
            yield from _seen(raw, reading.encoding)
        yield from reading.late()
        return
    other = any(found.code == "wrong_algorithm" for found in match.findings)
    # That the digest is too short or too long says less than which algorithm made it.
    yield from (fault for fault in reading.faults if not other or fault.evidence.get("digits") != 2 * match.length)
    retired = () if match.key.finding is None else (match.key.finding,)
    # A secret that was in use when the delivery was signed is retired for the late look at it only.
    late = reading.late(match.literal)
    in_use_then = bool(late) and match.key.in_use_at(reading.seconds(match.literal))
    yield from () if in_use_then else retired
    yield from match.findings
    yield from late
    yield from retired if in_use_then else ()


def _is_blank(raw: bytes) -> bool:
    return not raw or raw.isspace()


def _seen(raw: bytes, encoding: Finding | None = None) -> Iterator[Finding]:
    """Say what is plain to see of a body by its first bytes, although nothing reproduces its digest."""
    shown = compression_of(raw)
    if _is_blank(raw):
        yield finding("body_empty", "the body is empty", length=len(raw))
    elif shown is not None:
        yield finding("body_compressed", f"the body is compressed ({shown})", encoding=shown, held="compressed")
    elif encoding is not None:
        yield encoding


def _residual(search: Search, held: Held) -> Finding:
    names = [key.name for key in held.keys]
    json, tried = search.document.is_json, search.tried
    also = "" if json else "; the body is not JSON, so it is not what Roovet sent"
    tried_under = ", ".join(repr(name) for name in dict.fromkeys(names))
    message = f"no known mistake reproduces the digest; {tried} were tried, under {tried_under}{also}"
    return finding("wrong_secret_or_altered_body", message, tried=tried, json=json)


def explain_refusal(  # noqa: PLR0913 - what is known where a request is refused; most by keyword
    error: WebhookError, headers: Headers, raw: bytes, *, now: float, tolerance: float, accept_truncated: bool
) -> Diagnosis | None:
    """Say of a refusal what is plain to see: what a receiver tells in production, for the price of reading a header.

    No MAC is computed, and of the body only the first bytes are looked at, so that no stranger can make it cost more.

    Args:
        error: What the receiver refused the request with.
        headers: The headers of the request.
        raw: Its body, as far as that was read.
        now: The time of the refusal, Unix seconds.
        tolerance: Seconds of clock difference and delay accepted, in both directions.
        accept_truncated: Whether a digest of 128 bits is no fault.

    Returns:
        The diagnosis; ``None`` of a refusal that the signature has nothing to do with.
    """
    findings: tuple[Finding, ...] = ()
    if isinstance(error, SignatureMismatch):
        message = "the header is as it should be; debug=True searches for the reason, and so does explain"
        residual = () if _is_blank(raw) else (finding("wrong_secret_or_altered_body", message),)
        findings = (*_seen(raw), *residual)
    elif isinstance(error, VerificationError | UnsupportedMediaType):
        reading = Reading(headers, now=now, tolerance=tolerance, accept_truncated=accept_truncated)
        if isinstance(error, VerificationError):
            findings = (*reading.faults, *reading.late())
        elif reading.encoding is not None:
            findings = (reading.encoding,)
    return Diagnosis("refused", findings) if findings else None
