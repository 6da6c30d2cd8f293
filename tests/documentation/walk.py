"""Follow a tutorial to the letter, in an empty folder: write its files, give its commands, wait for what it shows.

How a page is read. A block of Python whose first line is ``# path`` is that file, and one with ``# path, at the end``
is added to it. ``sh`` is given to a terminal line by line, and ``text`` has to be shown there. A comment before a block
says what its form does not: ``terminal 2`` where the block belongs, ``keeps running`` that the command is a server.
Nothing is changed but the ports, since 8000 and 4010 may be taken.

Run as a module, it follows every tutorial with real installs, as a new user would. A test has no network. There,
``pip`` and ``python3 -m venv`` are those of `offline`, and make an environment that has what the page installs and no
more.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from documentation.pages import ROOT, TUTORIALS, Block, blocks_of
from documentation.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

_PORTS = ("8000", "4010")
_ORDINALS = {"2": "second", "3": "third", "4": "fourth"}
_PATIENCE, _PATIENCE_WITH_PIP = 30.0, 300.0  # seconds
_INSTALLS_HERE = f"""
python3() {{
  if [ "$1 $2" = "-m venv" ]; then command python3 -m venv --without-pip "$3"; else command python3 "$@"; fi
}}
pip() {{
  PYTHONPATH={shlex.quote(str(ROOT / "tests"))} \\
    {shlex.quote(sys.executable)} -m documentation.offline "$VIRTUAL_ENV" "$@"
}}
"""
# What a new user has not set.
_NOT_INHERITED = {"ROOVET_WEBHOOK_SECRET", "ROOVET_API_KEY", "PYTHONPATH", "VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE"}


class Walk:
    """The steps of one tutorial.

    Args:
        page: The page.
        folder: An empty folder.
        real: Whether to install from where pip installs from.
    """

    def __init__(self, page: str, folder: Path, *, real: bool) -> None:
        self.page = page
        self._start = folder
        self._shop = folder
        self._preamble = "" if real else _INSTALLS_HERE
        self._patience = _PATIENCE_WITH_PIP if real else _PATIENCE
        self._ports = {port: _free_port() for port in _PORTS}
        self._terminals: dict[str, Terminal] = {}
        (folder / "roovet-webhooks").symlink_to(ROOT, target_is_directory=True)

    def follow(self) -> int:
        """Follow the page to its end; return how many blocks there were."""
        with ExitStack() as stack:
            blocks = blocks_of(self.page)
            for block in blocks:
                code = block.code
                for port, free in self._ports.items():
                    code = code.replace(port, free)
                if block.language == "python":
                    self._write(code)
                    continue
                terminal = self._terminal(block, stack)
                if block.language == "text":
                    terminal.expect(code)
                elif block.note.endswith("keeps running"):
                    terminal.start(code.strip())
                else:
                    self._give(terminal, code)
            return len(blocks)

    def _terminal(self, block: Block, stack: ExitStack) -> Terminal:
        found = re.match(r"terminal (\d)", block.note)
        number = "1" if found is None else found[1]
        if number not in self._terminals:
            if number in _ORDINALS:
                # Where the page says that it is opened.
                said = re.search(rf"In a {_ORDINALS[number]} terminal, in the folder `(\w+)`", block.before)
                assert said is not None, f"the page does not say where the {_ORDINALS[number]} terminal is"
                assert self._start / said[1] == self._shop
            # Python's output is not to wait in a buffer: a terminal's does not.
            environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
            environment |= {"PYTHONUNBUFFERED": "1"}
            self._terminals[number] = Terminal(self._shop, environment, self._preamble, self._patience)
            stack.callback(self._terminals[number].close)
        return self._terminals[number]

    def _give(self, terminal: Terminal, code: str) -> None:
        for line in code.splitlines():
            if line.startswith("cd "):
                self._shop /= line.removeprefix("cd ")
            # A delivery that is refused is what these are for.
            expected = 1 if "--tamper" in line or "--stale" in line else 0
            status = terminal.run(line)
            assert status == expected, f"{line}: ended with {status}, having written:\n{terminal.shown()}"

    def _write(self, code: str) -> None:
        head, _, rest = code.partition("\n")
        name, _, how = head.removeprefix("# ").partition(", ")
        assert head.startswith("# "), "a block of a tutorial begins with the name of its file"
        assert how in {"", "at the end"}
        file = self._shop / name
        file.write_text(file.read_text("utf-8") + rest if how else code, "utf-8")


def _free_port() -> str:
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        return str(sock.getsockname()[1])


def follow_all() -> Iterator[str]:
    """Follow every tutorial with real installs."""
    for page in TUTORIALS:
        with tempfile.TemporaryDirectory() as folder:
            yield f"{page}: {Walk(page, Path(folder), real=True).follow()} blocks followed"


if __name__ == "__main__":
    for told in follow_all():
        sys.stdout.write(f"{told}\n")
