"""``verify``: whether a signature holds, and if not, why."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roovet_webhooks.cli.curl import is_curl, read_curl
from roovet_webhooks.cli.keyrings import needed_secrets, secret_options, telling_warnings
from roovet_webhooks.cli.pasted import Pasted
from roovet_webhooks.cli.rawrequest import is_request, read_request
from roovet_webhooks.cli.signing import SECONDS
from roovet_webhooks.cli.text import ago, plain, read_body
from roovet_webhooks.errors import VerificationError
from roovet_webhooks.events import MAX_TIMESTAMP
from roovet_webhooks.explain import explain
from roovet_webhooks.signing.header import SIGNATURE_HEADER, TIMESTAMP_HEADER, parse_signature, signature_of
from roovet_webhooks.signing.verifier import DEFAULT_TOLERANCE

if TYPE_CHECKING:
    from typing import BinaryIO

    from roovet_webhooks.cli.keyrings import GivenSecrets
    from roovet_webhooks.findings import Diagnosis

REFUSED = 1


@click.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--header", metavar="'t=…,v1=…'", help=f"Value of {SIGNATURE_HEADER}; FILE is then the body alone.")
@click.option(
    "--timestamp-header", metavar="UNIX", help=f"With --header: value of {TIMESTAMP_HEADER}, if there was one."
)
@click.option(
    "--request", "request_file", type=click.File("rb"), metavar="FILE", help="A raw HTTP request, without guessing."
)
@click.option("--curl", metavar="COMMAND", help="A curl command itself, or the file that it is in.")
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
    file: BinaryIO | None,
    header: str | None,
    timestamp_header: str | None,
    request_file: BinaryIO | None,
    curl: str | None,
    tolerance: float,
    now: int | None,
    accept_truncated: bool,
    as_json: bool,
    secret_file: GivenSecrets | None,
    secret: GivenSecrets | None,
) -> int:
    """Say whether a signature holds, and if not, why.

    FILE is the raw body, byte for byte as it arrived, and --header its signature. Without --header, FILE is a whole
    request as it was saved or copied: a raw HTTP request, or a curl command. Its headers say how it was signed, so
    --header does not go with it. Standard input is taken for FILE when there is none, and wherever - is given.

    A curl command is read and not run: nothing is sent, and only a file that it names for its body (@FILE) is read.

    The exit status is 0 when it is verified, 1 when it is refused, 2 when it could not be tried.

    \b
    Example: roovet-webhooks verify saved.http --now 1762782810
    Example: roovet-webhooks verify body.json --header 't=1762782800,v1=9392…'
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    secrets = needed_secrets(secret_file, secret)
    _check_sources(file, header, timestamp_header, request_file, curl)
    if header is not None:
        request = _with_header(_read(file), header, timestamp_header)
    elif curl is not None:
        request = read_curl(_command(curl))
    else:
        request = _recognised(_read(file)) if request_file is None else read_request(read_body(request_file))
    moment = time.time() if now is None else now
    with telling_warnings():
        diagnosis = explain(
            request.body,
            request.headers,
            secrets.reveal(),
            now=moment,
            tolerance=tolerance,
            accept_truncated=accept_truncated,
        )
    if as_json:
        click.echo(_as_json(diagnosis, request, moment))
    else:
        _show(Console(highlight=False), diagnosis, request, moment)
    return 0 if diagnosis.verdict == "verified" else REFUSED


def _check_sources(
    file: BinaryIO | None,
    header: str | None,
    timestamp_header: str | None,
    request_file: BinaryIO | None,
    curl: str | None,
) -> None:
    """Check that what is to be verified is given once.

    Raises:
        click.UsageError: It is not.
    """
    if sum(source is not None for source in (file, request_file, curl)) > 1:
        message = "FILE, --request and --curl exclude each other; give one"
        raise click.UsageError(message)
    if header is not None and (request_file is not None or curl is not None):
        message = "--header signs a body alone; with --request or --curl, the headers are those of the request"
        raise click.UsageError(message)
    if header is None and timestamp_header is not None:
        message = "--timestamp-header goes with --header; a whole request has its own"
        raise click.UsageError(message)


def _read(file: BinaryIO | None) -> bytes:
    return read_body(click.open_file("-", "rb") if file is None else file)


def _command(curl: str) -> bytes:
    command = os.fsencode(curl)
    if is_curl(command):
        return command
    try:
        with click.open_file(curl, "rb") as file:
            return read_body(file)
    except OSError as error:
        message = f"--curl takes a curl command, or the path of a file with one: {error.strerror}"
        raise click.UsageError(message) from None


def _with_header(body: bytes, header: str, timestamp_header: str | None) -> Pasted:
    headers = [(SIGNATURE_HEADER, header)]
    if timestamp_header is not None:
        headers.append((TIMESTAMP_HEADER, timestamp_header))
    notes: list[str] = []
    if is_request(body) or is_curl(body):
        notes.append("The body looks like a whole request. To have it read as one, leave out --header.")
    return Pasted([(name.encode(), os.fsencode(_value(name, text))) for name, text in headers], body, notes)


def _value(name: str, text: str) -> str:
    """Return a header's value, also where the whole line was pasted."""
    start, colon, rest = text.partition(":")
    return rest.strip() if colon and start.strip().lower() == name.lower() else text


def _recognised(content: bytes) -> Pasted:
    return read_curl(content) if is_curl(content) else read_request(content)


def _signed_at(request: Pasted) -> int | None:
    """Return the t of the signature, where there is one to be read."""
    try:
        signature, _ = signature_of(request.headers)
        return parse_signature(signature, accept_truncated=True)[1]
    except VerificationError:
        return None


def _as_json(diagnosis: Diagnosis, request: Pasted, now: float) -> str:
    timestamp = _signed_at(request)
    content = {
        "verified": diagnosis.verdict == "verified",
        "timestamp": timestamp,
        "secret_name": diagnosis.secret_name,
        "age": None if timestamp is None else round(now - timestamp, 3),
        "findings": [
            {
                "code": finding.code,
                "message": finding.message,
                "remedy": finding.remedy,
                "evidence": dict(finding.evidence),
            }
            for finding in diagnosis.findings
        ],
        "notes": list(request.notes),
    }
    return json.dumps(content)


def _show(console: Console, diagnosis: Diagnosis, request: Pasted, now: float) -> None:
    timestamp = _signed_at(request)
    when = "" if timestamp is None else ago(now - timestamp)
    lines: list[str] = []
    if diagnosis.verdict == "verified":
        name = plain(repr(diagnosis.secret_name))
        shown = Text.assemble(("verified", "green"), f": signed {when} with the signing secret {name}")
    else:
        shown = Text.assemble(("refused", "red"), f": {diagnosis.findings[0].code}")
        lines.append(f"body: {len(request.body)} bytes")
        if timestamp is not None:
            lines.append(f"signed: {when}, at {timestamp}{_date(timestamp)}")
    lines += [f"note: {note}" for note in request.notes]
    if {"stale", "future"}.intersection(diagnosis.codes) and timestamp is not None:
        lines.append(f"hint: for a recorded delivery, say when it came: --now {timestamp}")
    for line in lines:
        shown.append(f"\n  {plain(line)}")
    console.print(shown, soft_wrap=True)
    if diagnosis.verdict == "refused":
        console.print(_table(diagnosis))


def _date(timestamp: int) -> str:
    # A year of more than four digits is no datetime; the number says it as well.
    return f" ({datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M:%S} UTC)" if timestamp <= MAX_TIMESTAMP else ""


def _table(diagnosis: Diagnosis) -> Table:
    """Return the findings as a table, most likely first."""
    table = Table(box=box.HORIZONTALS, show_lines=True, header_style="bold", pad_edge=False)
    table.add_column("Code", no_wrap=True)
    table.add_column("What was found", ratio=1, min_width=20)
    table.add_column("What to do", ratio=1, min_width=20)
    for finding in diagnosis.findings:
        table.add_row(finding.code, Text(plain(finding.message)), Text(plain(finding.remedy)))
    return table
