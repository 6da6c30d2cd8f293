"""``sign`` and ``verify``: what a delivery's signature is, and whether one holds."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from roovet_webhooks.cli.keyrings import needed_secrets, secret_options
from roovet_webhooks.cli.text import ago, fact, read_body
from roovet_webhooks.errors import TimestampError, VerificationError
from roovet_webhooks.events import MAX_TIMESTAMP
from roovet_webhooks.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER
from roovet_webhooks.signing import DEFAULT_TOLERANCE, Signer, Verified, Verifier

if TYPE_CHECKING:
    from typing import BinaryIO

    from roovet_webhooks.cli.keyrings import GivenSecrets

REFUSED = 1
SECONDS = click.IntRange(0, 10**12 - 1)  # what the grammar of the header can hold

_HINTS = {
    "missing_signature": f"give the value of {SIGNATURE_HEADER} with --header",
    "malformed_signature": (
        "the form is t=<unix seconds>,v1=<64 lower-case hex digits>; --accept-truncated takes 32 digits as well"
    ),
    "signature_mismatch": (
        "the body must be byte for byte what arrived: an editor or a formatter changes it, if only by a line "
        "break at its end; else the secret is not the one it was signed with"
    ),
}


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--headers", is_flag=True, help="Print all headers of a delivery, as Roovet sends them.")
@click.option("--timestamp", type=SECONDS, metavar="UNIX", help="Time to sign, Unix seconds; now by default.")
@secret_options
def sign(
    *,
    file: BinaryIO,
    headers: bool,
    timestamp: int | None,
    secret_file: GivenSecrets | None,
    secret: GivenSecrets | None,
) -> int:
    """Print the X-Roovet-Signature of a body.

    FILE holds the raw body, taken byte for byte, a line break at its end included; - is standard input.
    With several secrets the first one signs.

    Example: roovet-webhooks sign body.json --secret-file secret.txt
    """
    signer = Signer(needed_secrets(secret_file, secret).keyring())
    raw = read_body(file)
    if headers:
        for name, value in signer.headers(raw, timestamp=timestamp).items():
            click.echo(f"{name}: {value}")
    else:
        click.echo(signer.sign(raw, timestamp=timestamp))
    return 0


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--header", required=True, metavar="'t=…,v1=…'", help=f"Value of {SIGNATURE_HEADER}.")
@click.option("--timestamp-header", metavar="UNIX", help=f"Value of {TIMESTAMP_HEADER}, if the delivery had one.")
@click.option(
    "--tolerance",
    type=float,
    default=DEFAULT_TOLERANCE,
    metavar="SECONDS",
    help=f"Clock difference and delay accepted, both ways; {DEFAULT_TOLERANCE:g} by default.",
)
@click.option("--now", type=SECONDS, metavar="UNIX", help="Time to verify at, Unix seconds; the clock by default.")
@click.option("--accept-truncated", is_flag=True, help="Take a digest of 32 hex digits (128 bits) as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@secret_options
def verify(  # noqa: PLR0913 - one argument an option
    *,
    file: BinaryIO,
    header: str,
    timestamp_header: str | None,
    tolerance: float,
    now: int | None,
    accept_truncated: bool,
    as_json: bool,
    secret_file: GivenSecrets | None,
    secret: GivenSecrets | None,
) -> int:
    """Say whether a signature holds, and if not, why.

    FILE holds the raw body, byte for byte as it arrived; - is standard input. The exit status is 0 when it is
    verified, 1 when it is refused, 2 when it could not be tried.

    \b
    Example: roovet-webhooks verify body.json \\
                 --header 't=1762782800,v1=9392…' --now 1762782810
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    verifier = Verifier(
        needed_secrets(secret_file, secret).keyring(), tolerance=tolerance, accept_truncated=accept_truncated
    )
    raw = read_body(file)
    moment = time.time() if now is None else now
    try:
        proof = verifier.verify(
            raw,
            _value(SIGNATURE_HEADER, header),
            now=moment,
            timestamp_header=None if timestamp_header is None else _value(TIMESTAMP_HEADER, timestamp_header),
        )
    except VerificationError as error:
        click.echo(_refusal_as_json(error) if as_json else _refusal(error, moment))
        return REFUSED
    click.echo(_proof_as_json(proof, moment) if as_json else _proof(proof, moment))
    return 0


def _value(name: str, text: str) -> str:
    """Return a header's value, also where the whole line was pasted."""
    start, colon, rest = text.partition(":")
    return rest.strip() if colon and start.strip().lower() == name.lower() else text


def _proof(proof: Verified, now: float) -> str:
    when = ago(now - proof.timestamp)
    return f"{click.style('verified', fg='green')}: signed {when} with the secret {proof.secret_name!r}"


def _proof_as_json(proof: Verified, now: float) -> str:
    return json.dumps({"verified": True, **proof._asdict(), "age": round(now - proof.timestamp, 3)})


def _refusal(error: VerificationError, now: float) -> str:
    lines = [f"{click.style('refused', fg='red')}: {error.code}: {error}"]
    lines += [f"  {name}: {fact(value)}" for name, value in error.evidence.items()]
    hint = _HINTS.get(error.code)
    if isinstance(error, TimestampError) and abs(error.skew) > error.tolerance:
        signed_at = round(now + error.skew)
        # A year of more than four digits is no datetime; the number says it as well.
        when = (
            f" ({datetime.fromtimestamp(signed_at, UTC):%Y-%m-%d %H:%M:%S} UTC)" if signed_at <= MAX_TIMESTAMP else ""
        )
        hint = f"signed at {signed_at}{when}; for a recorded delivery, say when it came: --now UNIX"
    if hint is not None:
        lines.append(f"  hint: {hint}")
    return "\n".join(lines)


def _refusal_as_json(error: VerificationError) -> str:
    return json.dumps({"verified": False, "code": error.code, "message": str(error), "evidence": dict(error.evidence)})
