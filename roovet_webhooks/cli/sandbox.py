"""``sandbox``: run a local Roovet, its API and its sender of webhooks."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text
from starlette.middleware.trustedhost import TrustedHostMiddleware

from roovet_webhooks.api.key import API_KEY_VARIABLE
from roovet_webhooks.cli.keyrings import environment_secrets, given_secrets, secret_options
from roovet_webhooks.cli.text import plain
from roovet_webhooks.serving import bind, server_of, url_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from roovet_webhooks.cli.keyrings import GivenSecrets
    from roovet_webhooks.sandbox.outbox import DueMessage, Result

DEFAULT_PORT = 4010
_LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"]


def _chaos_settings(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, object]:
    settings: dict[str, object] = {}
    for text in ",".join(texts).split(",") if texts else ():
        name, equals, value = text.strip().partition("=")
        settings[name] = value if equals else 0.2
    return settings


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=DEFAULT_PORT, help="4010 by default; 0: a free one.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 127.0.0.1 by default: this machine only.")
@click.option("--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="Keep everything in this file.")
@click.option("--forward", "urls", multiple=True, metavar="URL", help="Send events to this endpoint; may be repeated.")
@click.option("--retries/--no-retries", default=True, help="Send again what was not acknowledged; on by default.")
@click.option(
    "--chaos",
    multiple=True,
    metavar="FAULT[=0.2],…",
    callback=_chaos_settings,
    help="Have things go wrong: all, or faults with their probability.",
)
@click.option("--seed", type=int, help="Draw the same chaos again.")
@click.option("--rate-limit", type=click.IntRange(1), default=60, help="Requests a minute for each key; 60 by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one line when it is ready, and nothing else.")
@secret_options
def sandbox(  # noqa: PLR0913 - one argument an option
    *,
    port: int,
    host: str,
    path: Path | None,
    urls: tuple[str, ...],
    retries: bool,
    chaos: dict[str, object],
    seed: int | None,
    rate_limit: int,
    as_json: bool,
    secret_file: GivenSecrets | None,
    secret: GivenSecrets | None,
) -> int:
    """Run a local Roovet: its API, and its sender of webhooks, until Ctrl-C.

    It begins with a small shop and an API key: that in ROOVET_API_KEY, or else a new one, which it prints. Events go to
    each --forward, signed with the signing secret that is given, or in ROOVET_WEBHOOK_SECRET, or else a new one, which
    it prints. Chaos is drawn by --seed, so that a failure repeats. Everything is in memory unless --file names a file.

    Example: roovet-webhooks sandbox --forward http://127.0.0.1:8000/webhooks/roovet
    """
    from roovet_webhooks.sandbox import RETRIES, Sandbox, make_chaos, sandbox_app  # noqa: PLC0415 - needs its extra

    console = Console(highlight=False, soft_wrap=True)
    settings = chaos if seed is None else {**chaos, "seed": seed}
    given_key = os.environ.get(API_KEY_VARIABLE) or None
    made = Sandbox(
        path,
        chaos=make_chaos(settings),
        retry=RETRIES if retries else None,
        rate_limit=rate_limit,
        api_key=given_key,
    )
    given = given_secrets(secret_file, secret) or environment_secrets()
    # What was given is not shown: it may be one of the real ones.
    new_key = made.api_key if given_key is None else None
    known = None if given is None else given.first()
    shown = None
    for url in urls:
        shown = made.register(url, known or shown)
    with ExitStack() as stack:
        stack.callback(made.close)
        sock = stack.enter_context(bind(host, port))
        url = url_of(sock, "")
        if as_json:
            ready = {"url": url, "api_key": new_key, "signing_secret": None if known else shown}
            click.echo(json.dumps(ready))
        else:
            _welcome(console, url, urls, new_key, None if known else shown)
            made.on_sent = _Log(console).sent
        # The server has ended in order by then, and raises the signal again.
        with suppress(KeyboardInterrupt):
            server_of(_guarded(sandbox_app(made), host), lifespan=True, date_header=False).run(sockets=[sock])
    if not as_json:
        click.echo(err=True)  # the shell's prompt begins below the terminal's ^C
    return 0


def _guarded(app: ASGIApp, host: str) -> ASGIApp:
    """Refuse requests for other host names: a page in a browser must not reach the sandbox through its own name."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return TrustedHostMiddleware(app, allowed_hosts=[*_LOOPBACK_NAMES, host]) if local else app


def _welcome(console: Console, url: str, urls: tuple[str, ...], new_key: str | None, new_secret: str | None) -> None:
    console.print(Text(f"Roovet sandbox on {url}", "bold"))
    rows = [("API key", new_key or f"that in {API_KEY_VARIABLE}")]
    if new_secret is not None:
        rows.append(("Signing secret", new_secret))
    rows += [("Sends to", target) for target in urls]
    rows += [("Explorer", f"{url}/explorer"), ("Controls", f"{url}/_sandbox/")]
    for name, value in rows:
        console.print(f"  {name:<15}{plain(value)}")
    console.print("Ctrl-C ends it. To try it, in another terminal:", style="dim")
    shown = new_key or f"${API_KEY_VARIABLE}"
    console.print(Text(f'  curl -H "Authorization: Bearer {shown}" {url}/api/wallet/balance', "dim"))


class _Log:
    """Shows each attempt to deliver a message in a line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def sent(self, due: DueMessage, result: Result, retry_in: float | None) -> None:
        """Show what came of an attempt."""
        style = "green" if result.delivered else "red"
        line = Text(f"{time.strftime('%H:%M:%S')}  ", "dim")
        line.append(f"{result.status or '---'}", f"bold {style}")
        line.append(plain(f"  {due.event}  {due.resource}  "), "bold")
        facts = [f"{result.milliseconds} ms", due.url]
        facts += [f"attempt {due.attempt}"] if due.attempt > 1 else []
        facts += [f"chaos: {result.fault}"] if result.fault else []
        facts += [result.error] if result.error else []
        facts += [f"again in {retry_in:.1f} s"] if retry_in is not None else []
        line.append(plain(", ".join(facts)), "dim")
        self._console.print(line)
