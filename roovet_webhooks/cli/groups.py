"""A group of commands that all take ``-h``."""

from __future__ import annotations

import click

HELP_OPTIONS: dict[str, list[str]] = {"help_option_names": ["-h", "--help"]}


class Group(click.Group):
    """Gives each command its help options. A command inherits those of its caller only if nobody called it before."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command."""
        cmd.context_settings = {**HELP_OPTIONS, **cmd.context_settings}
        super().add_command(cmd, name)
