"""``listen``: a local receiver that shows each delivery as it comes."""

from __future__ import annotations

import logging
import warnings
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from roovet_webhooks import operations
from roovet_webhooks.asgi import WebhookMiddleware
from roovet_webhooks.cli.display import Display
from roovet_webhooks.cli.keyrings import given_secrets, needed_secrets, secret_options
from roovet_webhooks.cli.loading import carefully, load_receiver
from roovet_webhooks.messages import json_response
from roovet_webhooks.receiving.receiver import WebhookReceiver
from roovet_webhooks.serving import PATH, bind, log_to, server_of, url_of
from roovet_webhooks.worker import Worker

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from roovet_webhooks.cli.keyrings import GivenSecrets
    from roovet_webhooks.signing.keys import Keyring

_GRACE = 5.0  # seconds that handlers which run in the worker get to end


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, help="8000 by default; 0 takes a free one.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 127.0.0.1 by default: this machine only.")
@click.option("--path", default=PATH, help=f"Path of the endpoint; {PATH} by default.")
@click.option("--app", metavar="MODULE:RECEIVER", help="Run the handlers of your own WebhookReceiver.")
@secret_options
def listen(  # noqa: PLR0913 - one argument an option
    *, port: int, host: str, path: str, app: str | None, secret_file: GivenSecrets | None, secret: GivenSecrets | None
) -> int:
    """Receive deliveries and show each as it comes, until Ctrl-C.

    An accepted delivery is shown in full, a refused one with the precise reason, which its sender is never told, and
    with its cause, as verify finds it. With --app your own receiver runs its handlers, with the secret it was made
    with unless one is given here; it searches for causes if it was made with debug=True. Where its inbox is durable,
    each delivery is shown as stored, and then how it ends in a worker that runs beside it.

    Example: roovet-webhooks listen --app shop.webhooks:receiver
    """
    console = Console(highlight=False, soft_wrap=True)
    with ExitStack() as stack:
        if app is None:
            # What is accepted is shown by the handler, with its body; a line of the log would repeat it.
            display = Display(console, hidden=frozenset({"delivery.handled"}))
            receiver = _own_receiver(needed_secrets(secret_file, secret).keyring())
            receiver.on("*")(display.accepted)
        else:
            display = Display(console, hidden=frozenset({"worker.started", "worker.stopping", "worker.stopped"}))
            receiver = load_receiver(app)
            given = given_secrets(secret_file, secret)
            if given is not None:
                stack.enter_context(receiver.override(secret=given.keyring()))
        receiver.on_rejected(display.refused)
        carefully(receiver.check, app or "the receiver")
        endpoint = WebhookMiddleware(_elsewhere(display, path), receiver=receiver, path=path)
        sock = stack.enter_context(bind(host, port))
        stored = receiver.inbox.durable
        # The log has stored deliveries at DEBUG only, because a worker logs how each ends.
        stack.enter_context(log_to(display, logging.DEBUG if stored else logging.INFO))
        console.print(Text(f"Listening on {url_of(sock, path)}", "bold"))
        console.print("Ctrl-C ends it. To try it, in another terminal:", style="dim")
        trial = f"roovet-webhooks send --url {url_of(sock, path)} --event order.created --id ord_1"
        console.print(Text(f"  {trial}", "dim"))
        if stored:
            worker = Worker(receiver, grace=_GRACE)
            worker.start()
            stack.callback(operations.close_quietly, receiver.durable_inbox)
            stack.callback(worker.close)
            console.print(Text("Deliveries are stored in its inbox; a worker beside it runs them.", "dim"))
        # The server has ended in order by then, and raises the signal again.
        with suppress(KeyboardInterrupt):
            server_of(endpoint).run(sockets=[sock])
    click.echo(err=True)  # the shell's prompt begins below the terminal's ^C
    return 0


def _own_receiver(keyring: Keyring) -> WebhookReceiver:
    with warnings.catch_warnings():
        # That a search costs CPU time is said to whoever puts it into an application.
        warnings.filterwarnings("ignore", ".* has debug=True")
        return WebhookReceiver(keyring, debug=True)


def _elsewhere(display: Display, path: str) -> ASGIApp:
    """Return an application that answers 404 to whatever does not go to the endpoint, and shows it."""
    response = json_response(
        404, {"error": {"type": "not_found", "code": "404", "message": f"Deliveries go to {path}.", "param": None}}
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's own signature
        display.misdirected(f"{scope['method']} {scope['path'][:200]}", path)
        await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
        await send({"type": "http.response.body", "body": response.body})

    return app
