"""Where the command line takes signing secrets from. Nothing here prints one, or quotes one in an error."""

from __future__ import annotations

import codecs
import os
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.receiving.tenants import SECRET_VARIABLE
from roovet_webhooks.signing.keys import Keyring, as_keyring
from roovet_webhooks.signing.secrecy import Unpicklable

if TYPE_CHECKING:
    from roovet_webhooks.signing.keys import SecretLike

C = TypeVar("C", bound=Callable[..., Any])


class GivenSecrets(Unpicklable):
    """Signing secrets as somebody wrote them, of which one or the other may be none.

    Args:
        texts: At least one.
    """

    __slots__ = ("_texts",)

    def __init__(self, texts: Sequence[str | bytes]) -> None:
        self._texts = texts

    def keyring(self) -> Keyring:
        """Return them as a keyring; what is doubtful about one is told on standard error.

        Raises:
            InvalidSecretError: One of them cannot be a secret.
        """
        with telling_warnings():
            return as_keyring(self.reveal())

    def reveal(self) -> SecretLike:
        """Return them as they were written, for `explain`. Keep them out of variables that outlive the call."""
        return self._texts if len(self._texts) > 1 else self._texts[0]

    def first(self) -> str:
        """Return the first of them as text, which signs. Keep it out of variables that outlive the call.

        Raises:
            InvalidSecretError: It cannot be a secret.
        """
        return self.keyring().secrets[0].reveal().decode()

    def __repr__(self) -> str:
        """Show how many there are, and nothing else."""
        return f"GivenSecrets({len(self._texts)})"


@contextmanager
def telling_warnings() -> Generator[None]:
    """Show each warning in a line on standard error, when all is done."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        yield
    for warning in noted:
        click.echo(f"Warning: {warning.message}", err=True)


def _from_file(_context: click.Context, _option: click.Parameter, path: str | None) -> GivenSecrets | None:
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
    return GivenSecrets(lines)


def _from_text(_context: click.Context, _option: click.Parameter, text: str | None) -> GivenSecrets | None:
    return None if text is None else GivenSecrets(text.split(","))


# The callbacks take the text away while the options are read: no command ever holds a secret as text.
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
    """Give a command the options ``--secret-file`` and ``--secret``, as `GivenSecrets`."""
    return _FILE(_TEXT(command))


def given_secrets(secret_file: GivenSecrets | None, secret: GivenSecrets | None) -> GivenSecrets | None:
    """Return what the options give, if they give anything.

    Raises:
        click.UsageError: They give two things.
    """
    if secret_file is not None and secret is not None:
        message = "--secret-file and --secret exclude each other; give one"
        raise click.UsageError(message)
    return secret_file or secret


def needed_secrets(secret_file: GivenSecrets | None, secret: GivenSecrets | None) -> GivenSecrets:
    """Return what the options give, or else the environment.

    Raises:
        click.UsageError: The options give two things.
        ConfigurationError: There is no secret.
    """
    given = given_secrets(secret_file, secret)
    if given is not None:
        return given
    found = environment_secrets()
    if found is None:
        message = f"there is no signing secret: set {SECRET_VARIABLE} in the environment, or give --secret-file PATH"
        raise ConfigurationError(message)
    return found


def environment_secrets() -> GivenSecrets | None:
    """Return what the environment has, if it has any."""
    secrets = [part for part in os.environ.get(SECRET_VARIABLE, "").split(",") if part]
    return GivenSecrets(secrets) if secrets else None
