"""What the tests of the command line share: how it is run, and how it complains."""

from __future__ import annotations

from click.testing import CliRunner, Result

from roovet_webhooks import sign
from roovet_webhooks.cli.root import root
from support import NOW, SECRET

RAW = b'{"event":"order.created","id":"ord_123","ts":1762782800}'
HEADER = sign(RAW, SECRET, timestamp=NOW)


def run(*arguments: str, body: bytes = RAW) -> Result:
    result = CliRunner().invoke(root, arguments, input=body)
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert SECRET not in result.output
    return result


def verify_at(now: int, *arguments: str, header: str = HEADER, body: bytes = RAW) -> Result:
    return run("verify", "--header", header, "--now", str(now), *arguments, body=body)


def complaint(result: Result) -> str:
    """Check that a command complained as it should, and return its words."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) <= 2
    assert result.stderr.startswith("Error: ")
    return result.stderr
