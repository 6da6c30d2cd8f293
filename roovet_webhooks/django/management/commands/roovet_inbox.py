"""``manage.py roovet_inbox``: the commands of ``roovet-webhooks inbox``, for the receivers that the project mounts."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from roovet_webhooks.django.receivers import receivers
from roovet_webhooks.errors import WebhookError

if TYPE_CHECKING:
    from django.core.management.base import CommandParser

USAGE = 2


class Command(BaseCommand):
    """Look after the inboxes of the project."""

    help = (
        "Looks after the inbox of the project's receivers: list, show, replay, purge, stats, check. "
        "`manage.py roovet_inbox list --help` tells the options of one. Django's own options stand before its name."
    )
    # What has been recorded can be seen whatever the checks have to say about the project.
    requires_system_checks: Any = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take all that follows as it is."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND ...")

    def handle(self, *_arguments: object, **options: Any) -> None:  # noqa: ANN401 - Django's signature
        """Run one of the commands."""
        try:
            import click  # noqa: PLC0415 - an extra

            from roovet_webhooks.cli.inbox import inbox  # noqa: PLC0415 - needs the extra
            from roovet_webhooks.cli.targets import Receivers  # noqa: PLC0415 - needs the extra
        except ModuleNotFoundError as error:
            message = f"{error.name} is not installed; run: pip install 'roovet-webhooks[django,cli]'"
            raise CommandError(message, returncode=USAGE) from None
        mounted = Receivers(tuple(receiver for receiver in receivers() if receiver.inbox.durable))
        out, err = options.get("stdout") or sys.stdout, options.get("stderr") or sys.stderr
        try:
            with redirect_stdout(out), redirect_stderr(err):
                status = inbox.main(options["arguments"], "manage.py roovet_inbox", standalone_mode=False, obj=mounted)
        except click.Abort:
            sys.exit(130)
        except click.ClickException as error:
            raise CommandError(error.format_message(), returncode=USAGE) from None
        except WebhookError as error:
            raise CommandError(str(error), returncode=USAGE) from None
        if status:
            sys.exit(status)
