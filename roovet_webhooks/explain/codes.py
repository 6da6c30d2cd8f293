"""The codes of the findings of `explain`: what each means, and what to do about it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from roovet_webhooks.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping


class Code(NamedTuple):
    """What a code says, for the table of all codes.

    Attributes:
        meaning: What was found, in a sentence.
        remedy: What to do about it, in a sentence.
    """

    meaning: str
    remedy: str


# In the order in which causes are told, as far as one delivery can have several.
CODES: Mapping[str, Code] = {
    "ok": Code("The delivery is verified.", "Nothing is wrong."),
    "secret_has_whitespace": Code(
        "The signing secret begins or ends with white space, here or at the sender.",
        "Strip the secret where it is read; a line break at the end of a file is the usual cause.",
    ),
    "secret_is_quoted": Code(
        "The signing secret is wrapped in quotation marks, here or at the sender.",
        "Remove the quotation marks; they belong to the shell or to the .env file.",
    ),
    "secret_is_api_key": Code(
        "An API key (rvpk_…) was given in place of the signing secret.",
        "Copy the signing secret from the webhook settings at Roovet, and keep the API key out of here.",
    ),
    "secret_too_short": Code(
        "The signing secret is too short to be one.",
        "Copy the whole signing secret from the webhook settings at Roovet.",
    ),
    "secret_is_placeholder": Code(
        "The signing secret is a variable that nothing has expanded, or an example of a documentation.",
        "Have the shell, the template or the deployment fill in the secret from the webhook settings at Roovet.",
    ),
    "secrets_joined": Code(
        "Several signing secrets stand in one text, with commas between them.",
        "Pass a list of them; only the environment's ROOVET_WEBHOOK_SECRET is split at commas.",
    ),
    "missing_signature": Code(
        "There is no X-Roovet-Signature header.",
        "Pass the request's headers as they came, and let the proxy in front keep this one.",
    ),
    "duplicate_header": Code(
        "X-Roovet-Signature or X-Roovet-Timestamp stands more than once.",
        "Find which proxy adds it again; a delivery has one of each.",
    ),
    "malformed_signature": Code(
        "The signature header does not follow the grammar.",
        "Pass its value as it came: t=1762782800,v1= and 64 lower-case hex digits, without white space.",
    ),
    "truncated_digest": Code(
        "The digest has 32 hex digits, the leftmost half of an HMAC-SHA256.",
        "Accept it with accept_truncated=True if that is what Roovet sends you; else send all 64 digits.",
    ),
    "uppercase_digest": Code(
        "The digest is written in upper-case hex digits.",
        "Write it in lower-case digits, as Roovet does.",
    ),
    "base64_digest": Code(
        "The digest is written in base64.",
        "Write it in hex digits, as Roovet does: hexdigest(), or hash_hmac() without its binary flag.",
    ),
    "timestamp_in_milliseconds": Code(
        "The timestamp t is in milliseconds.",
        "Sign with Unix seconds, a number of 10 digits.",
    ),
    "secret_retired": Code(
        "The delivery is signed with a secret of the keyring that is not in use at this time.",
        "Give the secret a longer period until Roovet signs with the new one, or switch Roovet to the new one.",
    ),
    "secret_decoded": Code(
        "The text of the secret was decoded from hex or base64, or encoded so, by one of the two sides.",
        "Use the text of the secret as it is shown, as its UTF-8 bytes.",
    ),
    "secret_without_prefix": Code(
        "The secret stands without its prefix whsec_, here or at the sender.",
        "Use the whole text of the secret as it is shown, with whsec_ at its beginning.",
    ),
    "timestamp_not_signed": Code(
        "The digest covers the body alone.",
        "Sign t, a dot and the body: HMAC-SHA256(secret, t + '.' + raw).",
    ),
    "joiner_wrong": Code(
        "The digest covers t and the body, but they are not joined as t, a dot, body.",
        "Sign t, a dot and the body, in this order: t + '.' + raw.",
    ),
    "timestamp_altered": Code(
        "The digest covers another timestamp than the t of the header.",
        "Take the time once, and use it for the header and for the digest.",
    ),
    "wrong_algorithm": Code(
        "The digest was made with another algorithm than HMAC-SHA256.",
        "Sign with HMAC-SHA256.",
    ),
    "body_reserialized": Code(
        "The body was parsed and written again as other JSON than was signed.",
        "Verify the raw bytes of the request, before any JSON parser; send the very bytes that were signed.",
    ),
    "body_trailing_newline": Code(
        "A line break at the end of the body was added or removed.",
        "Keep the body byte for byte: editors, echo and heredocs add a line break; strip() and curl -d remove it.",
    ),
    "body_trimmed": Code(
        "White space around the body was added or removed.",
        "Keep the body byte for byte; neither pad nor strip it.",
    ),
    "body_bom": Code(
        "A byte order mark at the beginning of the body was added or removed.",
        "Read and write the body as bytes; an editor or utf-8-sig handles the mark.",
    ),
    "body_crlf": Code(
        "The line breaks of the body were changed between CRLF and LF.",
        "Read and write the body as bytes; text mode changes line breaks.",
    ),
    "body_reencoded": Code(
        "The body was decoded and encoded again in another character set.",
        "Read and write the body as bytes; a charset of Latin-1 was assumed somewhere.",
    ),
    "body_compressed": Code(
        "The body was compressed or decompressed after it was signed.",
        "Verify what was signed: undo the compression of a proxy, and let no middleware decompress a signed body.",
    ),
    "body_base64": Code(
        "The body is still in base64, as AWS API Gateway and Lambda pass it on.",
        "Decode it first: base64.b64decode(event['body']) where isBase64Encoded is true.",
    ),
    "body_empty": Code(
        "The body is empty; no delivery is.",
        "Read the body before anything else consumes it, and rewind the stream if something has.",
    ),
    "stale": Code(
        "The delivery was signed longer ago than the tolerance.",
        "Set the clock; a replay or a late retry is rightly refused. To look at an old one, pass its time as now.",
    ),
    "future": Code(
        "The delivery was signed further in the future than the tolerance.",
        "Set the clock: this one runs behind, or the sender's ahead.",
    ),
    "timestamp_header_mismatch": Code(
        "X-Roovet-Timestamp is not the t of the signature.",
        "Send the same number in both, or leave X-Roovet-Timestamp out.",
    ),
    "wrong_secret_or_altered_body": Code(
        "The digest does not agree, and no known mistake that was tried explains it.",
        "Compare the secret with the one in the webhook settings at Roovet, then the body with the bytes that arrived.",
    ),
}


# What is to be done in one of the cases of a code, by the evidence of the change or of what made it.
_REMEDIES: Mapping[tuple[str, object], str] = {
    ("body_trailing_newline", "added"): "Keep the body byte for byte; editors, echo and heredocs add a line break.",
    ("body_trailing_newline", "removed"): (
        "Keep the line break, which was signed: strip(), curl -d and log viewers remove it; --data-binary does not."
    ),
    ("body_trimmed", "added"): "Keep the body byte for byte; something adds white space.",
    ("body_trimmed", "removed"): "Keep the body byte for byte; something strips it.",
    ("body_reserialized", "jsonb"): (
        "Keep the raw body as bytea or text: PostgreSQL's jsonb keeps no order of keys, no spacing and no digits."
    ),
    ("body_reserialized", "sort_keys"): (
        "Verify the raw bytes of the request, before any JSON parser; a writer here sorts the keys (sort_keys)."
    ),
}


def remedies_of(code: str) -> frozenset[str]:
    """Return every remedy that a finding of a code may have."""
    return frozenset([CODES[code].remedy, *(remedy for (name, _), remedy in _REMEDIES.items() if name == code)])


def finding(code: str, message: str, **evidence: object) -> Finding:
    """Return a finding with the remedy that its code has; a number that JSON cannot write is no evidence."""
    facts = {name: value for name, value in evidence.items() if not isinstance(value, float) or math.isfinite(value)}
    remedy = _REMEDIES.get((code, facts.get("change", facts.get("via"))), CODES[code].remedy)
    return Finding(code, message, remedy, facts)
