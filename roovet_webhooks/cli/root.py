"""The group of all commands, and how every fault ends: in one or two lines on standard error."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from roovet_webhooks._version import __version__
from roovet_webhooks.cli.demo import demo
from roovet_webhooks.cli.inbox import inbox
from roovet_webhooks.cli.listening import listen
from roovet_webhooks.cli.probe import probe
from roovet_webhooks.cli.sandbox import sandbox
from roovet_webhooks.cli.sending import send
from roovet_webhooks.cli.signing import sign
from roovet_webhooks.cli.text import HELP_OPTIONS, plain
from roovet_webhooks.cli.trigger import resend, trigger
from roovet_webhooks.cli.verifying import verify
from roovet_webhooks.cli.working import worker
from roovet_webhooks.errors import WebhookError

USAGE = 2
INTERRUPTED = 130


class _CommandLine(click.Group):
    """A group whose commands return their exit status, and whose errors are short."""

    def main(self, *args: Any, **options: Any) -> NoReturn:  # noqa: ANN401 - click's own signature
        """Run a command and exit with its status."""
        options["standalone_mode"] = False
        options.setdefault("prog_name", self.name)
        try:
            status = super().main(*args, **options)
        except click.Abort:
            status = INTERRUPTED
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            hint = f"Try: {context.command_path} --help" if context is not None else None
            status = _complain(error.format_message(), hint)
        except (WebhookError, OSError) as error:
            status = _complain(str(error))
        sys.exit(status)


def _complain(message: str, hint: str | None = None) -> int:
    click.echo(f"Error: {plain(message)}", err=True)
    if hint is not None:
        click.echo(hint, err=True)
    return USAGE


@click.group("roovet-webhooks", cls=_CommandLine, invoke_without_command=True, context_settings=HELP_OPTIONS)
@click.version_option(__version__, prog_name="roovet-webhooks", message="%(prog)s %(version)s")
@click.pass_context
def root(context: click.Context) -> None:
    """Sign, verify, send and receive the webhooks of Roovet.

    The signing secret comes from --secret-file, or else from the environment variable ROOVET_WEBHOOK_SECRET
    (commas separate several). It is never printed.

    See all of it work, without any set-up: roovet-webhooks demo
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


for _command in (sign, verify, send, probe, listen, demo, worker, inbox, sandbox, trigger, resend):
    root.add_command(_command)
