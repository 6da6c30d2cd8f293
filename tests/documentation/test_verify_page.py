"""The page on `verify` shows what its commands print: its files are written, and its commands run in their order."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from roovet_webhooks.cli.root import root

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs/how-to/verify-from-the-command-line.md"
_FENCE = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
COMMANDS = 4


def without_trailing_blanks(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_the_commands_of_the_page_print_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    ran = 0
    for fence in _FENCE.finditer(PAGE.read_text("utf-8")):
        if fence["file"] is not None:
            Path(fence["file"]).write_bytes(fence["text"].encode())
        elif fence["language"] == "sh":
            assert not printed, "the page does not show what the command before this one prints"
            (line,) = fence["text"].splitlines()
            if line.startswith("export "):
                monkeypatch.setenv(*line.removeprefix("export ").split("="))
                continue
            name, *arguments = shlex.split(line)
            assert name == "roovet-webhooks"
            result = CliRunner().invoke(root, arguments)
            assert result.exit_code in {0, 1}
            printed = without_trailing_blanks(result.output)
            ran += 1
        else:
            assert printed == without_trailing_blanks(fence["text"])
            if fence["language"] == "json":
                json.loads(fence["text"])
            printed = []
    assert (ran, printed) == (COMMANDS, [])
