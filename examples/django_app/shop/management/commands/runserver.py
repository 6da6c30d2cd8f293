"""Django's development server, for an example that starts with one command."""

from __future__ import annotations

from django.core.management import call_command
from django.core.management.commands import runserver

from config.roovet import receiver
from roovet_webhooks.worker import Worker


class Command(runserver.Command):
    """Create the tables before the server starts, and run a worker beside it."""

    def check_migrations(self) -> None:
        """Apply what Django would only warn of."""
        call_command("migrate", verbosity=0)
        Worker(receiver, concurrency=2).start()
