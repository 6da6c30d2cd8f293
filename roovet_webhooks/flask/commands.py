"""``flask roovet worker`` and ``flask roovet inbox``: the same commands, for the receivers that the application mounts.

Flask imports this for each of its commands, whatever they are about; so it needs no more than Flask, until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from roovet_webhooks.errors import MissingExtraError, WebhookError

if TYPE_CHECKING:
    from flask import Flask

_COMMANDS = {
    "inbox": "roovet_webhooks.cli.inbox:inbox",
    "worker": "roovet_webhooks.flask.worker:worker",
}


class _Unusable(click.ClickException):
    exit_code = 2


class _Commands(AppGroup):
    """Imports a command when it is asked for, and exits with what it returns."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        try:
            command: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            message = f"{error.name} is not installed; run: pip install 'roovet-webhooks[flask,cli]'"
            raise click.UsageError(message, ctx) from None
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        try:
            status = super().invoke(ctx)
        except MissingExtraError as error:
            raise click.UsageError(str(error), ctx) from None
        except WebhookError as error:
            raise _Unusable(str(error)) from None
        return ctx.exit(status if isinstance(status, int) else 0)


@click.group("roovet", cls=_Commands)
@click.pass_context
@with_appcontext
def roovet(context: click.Context) -> None:
    """Run and look after the webhooks of Roovet."""
    from roovet_webhooks.cli.targets import Receivers  # noqa: PLC0415 - see above

    application = cast("Flask", cast("Any", current_app)._get_current_object())
    context.obj = Receivers(tuple(application.extensions.get("roovet_webhooks", {}).values()))
