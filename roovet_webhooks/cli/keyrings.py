"""Where the command line takes signing secrets from. Nothing here prints one, or quotes one in an error."""

from __future__ import annotations

import codecs
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.keys import Keyring, as_keyring
from roovet_webhooks.receiver import SECRET_VARIABLE

C = TypeVar("C", bound=Callable[..., Any])


def _from_file(_context: click.Context, _option: click.Parameter, path: str | None) -> Keyring | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        # The path is not quoted: it may be the secret itself, given in the wrong place.
        message = f"the file of --secret-file cannot be read: {error.strerror} (it takes a path, not the secret itself)"
        raise ConfigurationError(message) from None
    lines = [line for line in content.removeprefix(codecs.BOM_UTF8).splitlines() if line]
    if not lines:
        message = "the file of --secret-file is empty; write the signing secret into it, one to a line"
        raise ConfigurationError(message)
    return _keyring(lines)


def _from_text(_context: click.Context, _option: click.Parameter, text: str | None) -> Keyring | None:
    return None if text is None else _keyring(text.split(","))


def _keyring(secrets: Sequence[str | bytes]) -> Keyring:
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        keyring = as_keyring(secrets if len(secrets) > 1 else secrets[0])
    for warning in noted:
        click.echo(f"Warning: {warning.message}", err=True)
    return keyring


# The callbacks turn text into keyrings while the options are read: no command ever holds a secret as text.
_FILE = click.option(
    "--secret-file",
    metavar="PATH",
    callback=_from_file,
    help=f"File that holds the signing secret; several, one to a line. Else {SECRET_VARIABLE} is taken.",
)
_TEXT = click.option(
    "--secret",
    metavar="TEXT",
    callback=_from_text,
    help="The signing secret itself. It shows in the process list and in the shell's history: for test secrets only.",
)


def secret_options(command: C) -> C:
    """Give a command the options ``--secret-file`` and ``--secret``, as keyrings."""
    return _FILE(_TEXT(command))


def given_keyring(secret_file: Keyring | None, secret: Keyring | None) -> Keyring | None:
    """Return what the options give, if they give anything.

    Raises:
        click.UsageError: They give two things.
    """
    if secret_file is not None and secret is not None:
        message = "--secret-file and --secret exclude each other; give one"
        raise click.UsageError(message)
    return secret_file or secret


def needed_keyring(secret_file: Keyring | None, secret: Keyring | None) -> Keyring:
    """Return what the options give, or else the environment.

    Raises:
        click.UsageError: The options give two things.
        ConfigurationError: There is no secret.
        InvalidSecretError: The one in the environment cannot be one.
    """
    keyring = given_keyring(secret_file, secret)
    if keyring is not None:
        return keyring
    secrets = [part for part in os.environ.get(SECRET_VARIABLE, "").split(",") if part]
    if not secrets:
        message = f"there is no signing secret: set {SECRET_VARIABLE} in the environment, or give --secret-file PATH"
        raise ConfigurationError(message)
    return _keyring(secrets)
