"""``sign``: what a delivery's signature is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from roovet_webhooks.cli.keyrings import needed_secrets, secret_options
from roovet_webhooks.cli.text import read_body
from roovet_webhooks.signing.verifier import Signer

if TYPE_CHECKING:
    from typing import BinaryIO

    from roovet_webhooks.cli.keyrings import GivenSecrets

SECONDS = click.IntRange(0, 10**12 - 1)  # what the grammar of the header can hold


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--headers", is_flag=True, help="Print all headers of a delivery, as Roovet sends them.")
@click.option("--timestamp", type=SECONDS, metavar="UNIX", help="Time to sign, Unix seconds; now by default.")
@secret_options
def sign(
    *,
    file: BinaryIO,
    headers: bool,
    timestamp: int | None,
    secret_file: GivenSecrets | None,
    secret: GivenSecrets | None,
) -> int:
    """Print the X-Roovet-Signature of a body.

    FILE holds the raw body, taken byte for byte, a line break at its end included; - is standard input.
    With several secrets the first one signs.

    Example: roovet-webhooks sign body.json --secret-file secret.txt
    """
    signer = Signer(needed_secrets(secret_file, secret).keyring())
    raw = read_body(file)
    if headers:
        for name, value in signer.headers(raw, timestamp=timestamp).items():
            click.echo(f"{name}: {value}")
    else:
        click.echo(signer.sign(raw, timestamp=timestamp))
    return 0
