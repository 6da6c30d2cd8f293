"""``trigger`` and ``resend``: send one event, directly or through a running sandbox."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from roovet_webhooks.cli.keyrings import needed_secrets, secret_options
from roovet_webhooks.cli.posting import NoAnswer, Target, post
from roovet_webhooks.cli.sending import shown_answer, target_of
from roovet_webhooks.cli.text import plain
from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.signing.verifier import Signer

if TYPE_CHECKING:
    from roovet_webhooks.cli.keyrings import GivenSecrets

FAILED = 1
_TIMEOUT = 10.0
_SANDBOX = click.option(
    "--sandbox",
    "sandbox_target",
    metavar="URL",
    callback=target_of,
    help="Have this sandbox send it to its endpoints.",
)


def _values(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            message = f"{text!r} is not field=value"
            raise click.BadParameter(message)
        try:
            found[name] = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            found[name] = value  # text needs no quotes of its own
    return found


def _no_constant(name: str) -> object:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _fixture(path: Path, name: str) -> dict[str, Any]:
    """Return a table of a TOML file: an event, its id and its fields.

    Raises:
        ConfigurationError: The file cannot be read, or has no such table.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        message = f"the fixtures of {path} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from None
    except ValueError as error:
        message = f"{path} is not TOML: {error}"
        raise ConfigurationError(message) from None
    fixture = tables.get(name)
    if not isinstance(fixture, dict):
        known = ", ".join(name for name, table in tables.items() if isinstance(table, dict)) or "none"
        message = f"{path} has no table [{name}]; it has {known}"
        raise ConfigurationError(message)
    return {"event": name, **fixture}


@click.command()
@click.argument("name", metavar="EVENT")
@click.option("--to", "target", metavar="URL", callback=target_of, help="Sign it, and post it to this endpoint.")
@_SANDBOX
@click.option("--id", "resource", metavar="ID", help="The resource it is about; one is made up unless it is given.")
@click.option("--set", "fields", multiple=True, metavar="FIELD=VALUE", callback=_values, help="One more field.")
@click.option(
    "--fixtures",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file; EVENT names a table of it, with event, id and more fields.",
)
@secret_options
def trigger(  # noqa: PLR0913 - one argument an option
    *,
    name: str,
    target: Target | None,
    sandbox_target: Target | None,
    resource: str | None,
    fields: dict[str, object],
    fixtures: Path | None,
    secret_file: GivenSecrets | None,
    secret: GivenSecrets | None,
) -> int:
    """Send one event of any name.

    Either --to an endpoint, signed with the signing secret, or through a running --sandbox, which sends it to all its
    endpoints. The exit status is 0 when the answer was 2xx, 1 when it was not or none came, 2 when nothing was sent.

    Example: roovet-webhooks trigger order.created --to http://127.0.0.1:8000/webhooks/roovet --set note=hello
    """
    if (target is None) == (sandbox_target is None):
        message = "say where to: --to URL of an endpoint, or --sandbox URL of a running sandbox"
        raise click.UsageError(message)
    content = {"event": name} if fixtures is None else _fixture(fixtures, name)
    content |= fields
    event = str(content.pop("event"))
    made_up = f"{event.partition('.')[0][:3]}_{int(time.time() * 1000)}"
    identity = str(resource or content.pop("id", None) or made_up)
    content.pop("id", None)
    if sandbox_target is not None:
        return _control(sandbox_target, "events", {"event": event, "id": identity, "fields": content})
    signer = Signer(needed_secrets(secret_file, secret).keyring())
    raw = json.dumps(
        {"event": event, "id": identity, "ts": int(time.time()), **content}, separators=(",", ":")
    ).encode()
    assert target is not None  # noqa: S101 - one of the two is there
    return _post(target, raw, signer.headers(raw), f"{event} {identity} to {target}")


@click.command()
@click.argument("number", type=click.IntRange(1))
@_SANDBOX
def resend(*, number: int, sandbox_target: Target | None) -> int:
    """Have a running sandbox send an event once more, as the same bytes.

    NUMBER is the event's: event_id in the sandbox's log of deliveries.

    Example: roovet-webhooks resend 7 --sandbox http://127.0.0.1:4010
    """
    if sandbox_target is None:
        message = "give the --sandbox URL that it prints when it starts"
        raise click.UsageError(message)
    return _control(sandbox_target, "events/resend", {"number": number})


def _control(sandbox: Target, path: str, content: dict[str, object]) -> int:
    target = sandbox.at(f"/_sandbox/{path}")
    raw = json.dumps(content).encode()
    return _post(target, raw, {"Content-Type": "application/json"}, str(target))


def _post(target: Target, raw: bytes, headers: dict[str, str], what: str) -> int:
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(plain(what), "bold"))
    try:
        answer = post(target, raw, headers, timeout=_TIMEOUT)
    except NoAnswer as error:
        click.echo(f"Error: no answer from {target}: {plain(str(error))}", err=True)
        return FAILED
    console.print(shown_answer(answer))
    return 0 if answer.ok else FAILED
