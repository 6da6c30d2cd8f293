"""``send``: post a signed delivery, well-behaved or not, and show the answer."""

from __future__ import annotations

import json
import time
from math import isinf
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from roovet_webhooks._version import __version__
from roovet_webhooks.cli.keyrings import needed_secrets, secret_options
from roovet_webhooks.cli.posting import Answer, NoAnswer, Target, post
from roovet_webhooks.cli.text import ago, plain, pretty, read_body
from roovet_webhooks.signing.verifier import Signer

if TYPE_CHECKING:
    from typing import BinaryIO

    from roovet_webhooks.cli.keyrings import GivenSecrets

FAILED = 1
_SHOWN_HEADERS = ("Content-Type", "Retry-After", "Allow", "Location")


def target_of(_context: click.Context, _option: click.Parameter, url: str | None) -> Target | None:
    """Read the URL of an option or an argument."""
    try:
        return None if url is None else Target.parse(url)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _fields(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            if not (name and equals):
                raise ValueError  # noqa: TRY301 - the same fault as a value that is no JSON
            fields[name] = json.loads(value, parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError):
            message = f"{text!r} is not name=json; text needs its own quotes: --field 'note=\"thanks\"'"
            raise click.BadParameter(message) from None
    return fields


def _no_constant(name: str) -> object:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        message = f"{text} is more than a float holds, and Infinity is not JSON"
        raise ValueError(message)
    return number


@click.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--url", "target", required=True, metavar="URL", callback=target_of, help="Where to post, http or https.")
@click.option("--event", metavar="NAME", help="Make the body: an event of this name, happening now.")
@click.option("--id", "resource", metavar="ID", help="With --event: the resource it is about.")
@click.option("--field", "fields", multiple=True, metavar="NAME=JSON", callback=_fields, help="With --event: one more.")
@click.option("--tamper", is_flag=True, help="Misbehave: add a space to the body after it was signed.")
@click.option("--stale", type=int, default=0, metavar="SECONDS", help="Misbehave: sign as if so long ago (< 0: ahead).")
@click.option("--repeat", type=click.IntRange(1, 1000), default=1, metavar="N", help="Send the same delivery N times.")
@click.option(
    "--timeout", type=click.FloatRange(0.001, 600), default=10.0, metavar="SECONDS", help="Patience; 10 by default."
)
@secret_options
def send(  # noqa: PLR0913 - one argument an option
    *,
    file: BinaryIO | None,
    target: Target,
    event: str | None,
    resource: str | None,
    fields: dict[str, object],
    tamper: bool,
    stale: int,
    repeat: int,
    timeout: float,
    secret_file: GivenSecrets | None,
    secret: GivenSecrets | None,
) -> int:
    """Sign a delivery and post it.

    The body is FILE (- is standard input), byte for byte, or an event made by --event and --id. The exit status
    is 0 when every answer was 2xx, 1 when one was not or none came, 2 when nothing was sent.

    \b
    Example: roovet-webhooks send --url http://127.0.0.1:8000/webhooks/roovet \\
                 --event order.created --id ord_123 --field amount_cents=1250
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    signer = Signer(needed_secrets(secret_file, secret).keyring())
    raw = _body(file, event, resource, fields)
    headers = signer.headers(raw, timestamp=_signing_time(stale))
    headers["User-Agent"] = f"roovet-webhooks/{__version__}"
    if tamper:
        raw += b" "
    console = Console(highlight=False, soft_wrap=True)
    sent = f"POST {target}, {len(raw)} bytes"
    sent += f", signed {ago(stale)}" if stale else ""
    sent += ", tampered with" if tamper else ""
    acknowledged: list[bool] = []
    for turn in range(1, repeat + 1):
        number = f" ({turn} of {repeat})" if repeat > 1 else ""
        console.print(Text(sent + number, "bold"))
        try:
            answer = post(target, raw, headers, timeout=timeout)
        except NoAnswer as error:
            click.echo(f"Error: no answer from {target}: {plain(str(error))}", err=True)
            return FAILED
        console.print(shown_answer(answer))
        acknowledged.append(answer.ok)
    return 0 if all(acknowledged) else FAILED


def _signing_time(stale: int) -> int:
    moment = int(time.time()) - stale
    if not 0 <= moment < 10**12:
        message = "--stale leads to a time that the signature header cannot hold"
        raise click.UsageError(message)
    return moment


def _body(file: BinaryIO | None, event: str | None, resource: str | None, fields: dict[str, object]) -> bytes:
    if file is not None:
        if event is not None or resource is not None or fields:
            message = "FILE is the whole body; --event, --id and --field make another: give one or the other"
            raise click.UsageError(message)
        return read_body(file)
    if event is None or resource is None:
        message = "there is nothing to send: give FILE (- is standard input), or --event with --id"
        raise click.UsageError(message)
    content = {"event": event, "id": resource, "ts": int(time.time()), **fields}
    return json.dumps(content, separators=(",", ":")).encode()


def shown_answer(answer: Answer) -> Text:
    """Return an answer as a terminal shows it."""
    style = "green" if answer.ok else "red"
    shown = Text(f"{answer.status} {plain(answer.reason)}", style)
    shown.append(f"  in {answer.seconds * 1000:.0f} ms", "dim")
    for name in _SHOWN_HEADERS:
        if (value := answer.header(name)) is not None:
            shown.append(f"\n{name}: {plain(value)}", "cyan")
    if answer.body:
        shown.append(f"\n{pretty(answer.body)}", "")
    if 300 <= answer.status < 400:  # noqa: PLR2004 - the class of redirects
        where = plain(answer.header("Location") or "nowhere")
        shown.append(f"\nThis would lead to {where}. No sender follows it: give Roovet the URL that answers itself.")
    return shown
