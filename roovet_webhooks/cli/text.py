"""What may be shown on a terminal of bytes that others wrote."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from typing import IO

MAX_INPUT_BYTES = 16 * 1024 * 1024  # a receiver takes 1 MiB unless it is told otherwise


def plain(text: str) -> str:
    """Return the text with every character that could steer a terminal as an escape; line breaks stay."""
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in text
    )


def pretty(raw: bytes) -> str:
    """Return a body as text: indented where it is JSON, as it came where it is not."""
    try:
        text = json.dumps(json.loads(raw), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = raw.decode("utf-8", "backslashreplace")
    return plain(text)


def ago(seconds: float) -> str:
    """Say when something was, so many seconds before now."""
    return f"{seconds:.0f} s ago" if seconds >= 0 else f"{-seconds:.0f} s in the future"


def fact(value: object) -> str:
    """Return a piece of an error's evidence as a person reads it."""
    if isinstance(value, tuple):
        return ", ".join(map(str, cast("tuple[object, ...]", value))) or "none"
    return str(round(value, 3) if isinstance(value, float) else value)


def read_body(file: IO[bytes]) -> bytes:
    """Read a body, or a whole request, to its end; a person who is expected to type it is told so.

    Raises:
        click.UsageError: It is longer than any delivery.
    """
    if file.isatty():
        end = "Ctrl-Z and Enter" if sys.platform == "win32" else "Ctrl-D"
        click.echo(f"Reading from the keyboard; {end} ends it.", err=True)
    content = file.read(MAX_INPUT_BYTES + 1)
    if len(content) > MAX_INPUT_BYTES:
        message = f"there are more than {MAX_INPUT_BYTES} bytes to read, which is no delivery"
        raise click.UsageError(message)
    return content
