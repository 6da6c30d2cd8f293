"""Say why a delivery is refused: recompute its MAC under the mistakes that are known to be made.

`verify` says yes or no. `explain` looks at the same request again and names the cause. It is for a developer's
terminal and log, and never part of an HTTP answer.
"""

from __future__ import annotations

from roovet_webhooks.diagnosis import CODES, Code, Diagnosis, Finding
from roovet_webhooks.errors import VerificationError
from roovet_webhooks.keys import SecretLike, forgets_secret
from roovet_webhooks.signing import DEFAULT_TOLERANCE, Headers, verify
from roovet_webhooks.signing import signature_of as _signature_of

__all__ = ["CODES", "Code", "Diagnosis", "Finding", "explain"]


@forgets_secret
def explain(  # noqa: PLR0913 - as verify
    raw: bytes,
    headers: Headers,
    secret: SecretLike,
    *,
    now: float | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    accept_truncated: bool = False,
) -> Diagnosis:
    """Say why a delivery is refused, or that it is not.

    Args:
        raw: The body, byte for byte as it arrived.
        headers: The request's headers as a mapping or as pairs, or the signature header's text itself.
        secret: The signing secret, several of them, or a `Keyring`; also what `Secret` would refuse.
        now: The time to verify at, Unix seconds; the system clock when ``None``.
        tolerance: Seconds of clock difference and delay accepted, in both directions.
        accept_truncated: Whether a digest of the leftmost 128 bits is taken as well.

    Returns:
        The verdict of `verify`, and what was found, the most likely cause first.

    Raises:
        TypeError: ``raw`` is not bytes.
        ConfigurationError: There is no secret, or an option cannot be what it is given for.
    """
    # The causes are still told in the words of `verify`; the search comes next.
    code, message, name = "ok", "The delivery is verified.", None
    try:
        signature, timestamp_header = _signature_of(headers)
        proof = verify(
            raw,
            signature,
            secret,
            tolerance=tolerance,
            accept_truncated=accept_truncated,
            now=now,
            timestamp_header=timestamp_header,
        )
        name = proof.secret_name
    except VerificationError as error:
        code = {
            "signature_mismatch": "wrong_secret_or_altered_body",
            "stale_timestamp": "stale",
            "future_timestamp": "future",
        }.get(error.code, error.code)
        message = str(error)
    finding = Finding(code, message, CODES[code].remedy)
    return Diagnosis("verified" if code == "ok" else "refused", (finding,), name)
