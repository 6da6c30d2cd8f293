"""Django's development server, for an example that starts with one command."""

from __future__ import annotations

from django.core.management import call_command
from django.core.management.commands import runserver


class Command(runserver.Command):
    """Create the tables before the server starts."""

    def check_migrations(self) -> None:
        """Apply what Django would only warn of."""
        call_command("migrate", verbosity=0)
