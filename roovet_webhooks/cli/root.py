"""The group of all commands, and how every fault ends: in one or two lines on standard error."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from roovet_webhooks._version import __version__
from roovet_webhooks.cli.groups import HELP_OPTIONS, Group
from roovet_webhooks.cli.text import plain
from roovet_webhooks.errors import WebhookError

USAGE = 2
INTERRUPTED = 130


# Each is imported when it is run: what `sandbox` needs, `sign` does not wait for.
_COMMANDS = {
    "sign": "signing:sign",
    "verify": "verifying:verify",
    "send": "sending:send",
    "probe": "probe:probe",
    "listen": "listening:listen",
    "demo": "demo:demo",
    "worker": "working:worker",
    "inbox": "inbox:inbox",
    "sandbox": "sandbox:sandbox",
    "trigger": "trigger:trigger",
    "resend": "trigger:resend",
}


class _CommandLine(Group):
    """A group whose commands return their exit status, and whose errors are short."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS and cmd_name not in self.commands:
            module, _, name = _COMMANDS[cmd_name].partition(":")
            self.add_command(getattr(import_module(f"roovet_webhooks.cli.{module}"), name))
        return super().get_command(ctx, cmd_name)

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
